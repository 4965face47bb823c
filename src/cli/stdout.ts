import { fstatSync, writeSync } from "node:fs";
import { codeOf, messageOf } from "../base/errors.ts";
import type { OutputStream } from "./output.ts";

/** The stdout of this process. */
export interface Stdout {
  readonly stream: OutputStream;
  /** Whether something could not be written, other than because the reader closed it. */
  readonly hasFailed: boolean;
}

/**
 * Opens stdout and listens for its failures. `rowkeep list shop | head` is none: what cannot be written any more is dropped, the
 * work goes on. Neither does the work end for any other failure; `onFailure` is called with the reason, once.
 */
export function openStdout(onFailure: (reason: string) => void): Stdout {
  let hasFailed = false;
  const fail = (error: unknown) => {
    if (hasFailed || isClosed(error)) return;
    hasFailed = true;
    onFailure(reasonOf(error));
  };
  const { stdout } = process;
  stdout.on("error", fail);
  return {
    stream: isFile(stdout) ? new FileOutput(stdout.fd, fail) : stdout,
    get hasFailed() {
      return hasFailed;
    },
  };
}

/** Whether this is no failure of ours: nobody reads stdout any more. */
export function isClosed(error: unknown): boolean {
  return CLOSED.has(codeOf(error) ?? "");
}

/** Says why something cannot be written to stdout. */
export function reasonOf(error: unknown): string {
  return isClosed(error) ? "its reader has closed it" : (REASONS[codeOf(error) ?? ""] ?? messageOf(error));
}

export const UNWRITABLE_HINT = "Free space there, or send the output elsewhere.";

const CLOSED: ReadonlySet<string> = new Set(["EPIPE", "ERR_STREAM_DESTROYED"]);
const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: "no space left on the device",
  EDQUOT: "the disk quota is used up",
  EFBIG: "the file would be larger than files may be",
};

function isFile({ fd, isTTY }: { readonly fd: number; readonly isTTY?: boolean }): boolean {
  const stat = fstatSync(fd);
  return stat.isFile() || (stat.isCharacterDevice() && isTTY !== true);
}

/** Node's own stream for files takes a part that was written for the whole: a full disk would cut the output without an error. */
class FileOutput implements OutputStream {
  readonly #descriptor: number;
  readonly #fail: (error: unknown) => void;
  #error: unknown;

  constructor(descriptor: number, fail: (error: unknown) => void) {
    this.#descriptor = descriptor;
    this.#fail = fail;
  }

  write(data: string | Uint8Array, done?: (error?: unknown) => void): boolean {
    const bytes = typeof data === "string" ? Buffer.from(data) : data;
    try {
      for (let at = 0; this.#error === undefined && at < bytes.length; ) at += writeSync(this.#descriptor, bytes, at);
    } catch (error) {
      this.#error = error;
    }
    // Who asks for the outcome tells it.
    if (done) done(this.#error);
    else if (this.#error !== undefined) this.#fail(this.#error);
    return true;
  }
}
