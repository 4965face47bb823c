import { tmpdir } from "node:os";
import type { FileSink } from "../archive/file-sink.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import { orAborted } from "../base/or-aborted.ts";
import { destinationError } from "../destinations/destination.ts";
import type { ExportTo } from "../usecases/export-database.ts";
import type { CliContext } from "./context.ts";
import type { OutputStream } from "./output.ts";
import { reasonOf, UNWRITABLE_HINT } from "./stdout.ts";

const PLACE = "stdout";
/** As long as no more was written, nothing leaves: an export may begin again before it has read a row. */
const HELD_BYTES = 64 * 1024;

/** Writes an export to stdout. Fails with kind `usage` where that would be a terminal, or is taken by JSON lines. */
export function exportToStdout({ stdout, json }: Pick<CliContext, "stdout" | "json">): ExportTo {
  if (json) {
    throw refused("--json writes there too", "Leave out --json, or name a file.");
  }
  if (stdout.isTTY)
    throw refused("it is a terminal", "Send it to a file or another program: rowkeep export <url> - | …");
  const state = { hasWritten: false };
  return { place: PLACE, spoolParent: tmpdir(), open: async () => new StdoutSink(stdout, state) };
}

function refused(reason: string, hint: string): Error {
  return new OperationalError(`cannot export to stdout: ${reason}`, { kind: "usage", code: "stdout-taken", hint });
}

/** What was written cannot be taken back, and nothing is read back: a reader knows that it has all by the exit code and the file's end. */
class StdoutSink implements FileSink {
  readonly place = PLACE;
  readonly #stdout: OutputStream;
  readonly #state: { hasWritten: boolean };
  #held: Uint8Array[] | undefined = [];
  #heldBytes = 0;

  constructor(stdout: OutputStream, state: { hasWritten: boolean }) {
    this.#stdout = stdout;
    this.#state = state;
  }

  async append(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    if (!this.#held) return this.#write(bytes, signal);
    this.#held.push(bytes);
    this.#heldBytes += bytes.length;
    if (this.#heldBytes > HELD_BYTES) await this.#release(signal);
  }

  async finish(signal: AbortSignal): Promise<undefined> {
    await this.#release(signal);
  }

  async remove(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}

  async #release(signal: AbortSignal): Promise<void> {
    const held = this.#held ?? [];
    this.#held = undefined;
    if (held.length > 0 && this.#state.hasWritten) {
      throw new OperationalError("cannot begin the export again: a part of it went to stdout already", {
        kind: "database",
        code: "cannot-begin-again",
        hint: "Name a file instead of -, or try again when nobody changes the schema.",
      });
    }
    for (const bytes of held) await this.#write(bytes, signal);
  }

  async #write(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    if (bytes.length === 0) return;
    this.#state.hasWritten = true;
    const written = Promise.withResolvers<void>();
    this.#stdout.write(bytes, (error) => (error ? written.reject(unwritable(error)) : written.resolve()));
    await orAborted(written.promise, signal);
  }
}

function unwritable(cause: unknown): Error {
  const isFull = codeOf(cause) === "ENOSPC";
  return destinationError(`cannot write the export to stdout: ${reasonOf(cause)}`, isFull ? "full" : "failed", {
    ...(isFull ? { hint: UNWRITABLE_HINT } : {}),
    cause,
  });
}
