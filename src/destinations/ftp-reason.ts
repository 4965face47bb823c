import type { Client } from "basic-ftp";
import { codeOf, messageOf } from "../base/errors.ts";
import { orAborted } from "../base/or-aborted.ts";
import { replyCodeOf } from "./ftp-errors.ts";
import { networkMeaning } from "./network-errors.ts";

/** How long the reason of a broken data connection may take. */
const REASON_MS = 3_000;

/**
 * Runs a request and hears why its data connection broke. A server that refuses a transfer, or cannot store what it gets
 * (a full disk: 452, 552), closes the data connection first and tells why on the other one; the library would close both
 * at the first sign. Rejects with the server's answer where there is one.
 */
export async function hearReason<T>(client: Client, request: () => Promise<T>): Promise<T> {
  const { ftp } = client;
  const close = ftp.closeWithError.bind(ftp);
  let late: NodeJS.Timeout | undefined;
  ftp.closeWithError = (error) => {
    if (isBrokenData(error)) late ??= setTimeout(() => close(error), REASON_MS);
    else close(error);
  };
  try {
    return await request();
  } catch (error) {
    if (replyCodeOf(error) !== undefined || client.closed || !isBrokenData(error)) throw error;
    throw await nextFailure(client, error);
  } finally {
    clearTimeout(late);
    ftp.closeWithError = close;
  }
}

/** The library names the socket in the messages; a stream that broke because of the socket has a code of its own. */
function isBrokenData(error: unknown): boolean {
  const says = messageOf(error);
  if (says.endsWith("(control socket)") || says.startsWith("Timeout")) return false;
  const isStream = /^ERR_STREAM_(PREMATURE_CLOSE|DESTROYED|WRITE_AFTER_END)$/.test(codeOf(error) ?? "");
  return isStream || says.endsWith("(data socket)") || networkMeaning(error)?.code === "unreachable";
}

/** Waits for the server's next answer: the error that it is, or `otherwise`. */
async function nextFailure({ ftp }: Client, otherwise: unknown): Promise<unknown> {
  const answer = ftp.handle(undefined, (response, task) => {
    if (response instanceof Error) task.reject(response);
    else task.resolve(response);
  });
  return await orAborted(answer, AbortSignal.timeout(REASON_MS)).then(
    () => otherwise,
    (error: unknown) => (replyCodeOf(error) === undefined ? otherwise : error),
  );
}
