import pg from "pg";
import { messageOf } from "../../base/errors.ts";

/** As long as a first connection may take, or in proportion where less patience is asked for. */
const MOST_ANSWER_MS = 20_000;
const ANSWER_SHARE = 10;

export interface SilenceOptions {
  /** How long a statement is left alone before anybody is asked about it, and between two times. */
  readonly afterMs: number;
  /** The server, or the network before it, has stopped: neither the statement nor a new connection got any answer. */
  readonly onSilence: (silentMs: number) => void;
}

/**
 * Watches a statement until it is disposed of. Nobody can tell from its silence alone whether it builds an index for hours, waits for a
 * lock, or will never be answered: so a new connection asks now and then. Whatever the server says to that, it is there.
 */
export function watchSilence(config: pg.ClientConfig, { afterMs, onSilence }: SilenceOptions): Disposable {
  const startedAt = performance.now();
  const answerMs = Math.min(MOST_ANSWER_MS, afterMs * ANSWER_SHARE);
  let asking: pg.Client | undefined;
  const ask = () => {
    if (asking) return;
    const client = new pg.Client({ ...config, connectionTimeoutMillis: answerMs });
    asking = client;
    client.on("error", () => undefined);
    const hear = (isSilent: boolean) => {
      client.end().catch(() => undefined);
      if (asking !== client) return;
      asking = undefined;
      if (isSilent) onSilence(performance.now() - startedAt);
    };
    client.connect().then(
      () => hear(false),
      (error: unknown) => hear(isWithoutAnswer(error)),
    );
  };
  const timer = setInterval(ask, afterMs).unref();
  return {
    [Symbol.dispose]() {
      clearInterval(timer);
      const client = asking;
      asking = undefined;
      // It would keep the process waiting for an answer that nobody needs any more.
      if (client) (client as unknown as { connection: pg.Connection }).connection.stream.destroy();
    },
  };
}

/** A refusal is an answer, and a connection that is cut was there; the library has no code for its timeout. */
function isWithoutAnswer(error: unknown): boolean {
  return /timeout expired/.test(messageOf(error));
}
