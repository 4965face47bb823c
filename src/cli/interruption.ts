import { writeSync } from "node:fs";
import { exitCodeOf } from "./error-report.ts";

/** The first signal asks for an orderly stop, the second ends the process at once. */
export interface Interruption extends Disposable {
  readonly signal: AbortSignal;
  /** The signal that came, if one did. */
  readonly by: NodeJS.Signals | undefined;
}

// SIGTERM is never delivered on Windows; SIGBREAK is Ctrl-Break there.
const SIGNALS: readonly NodeJS.Signals[] =
  process.platform === "win32" ? ["SIGINT", "SIGBREAK", "SIGHUP"] : ["SIGINT", "SIGTERM", "SIGHUP"];

/** Listens for signals until disposed. `announce` is called once, with what to tell the person. */
export function listenForSignals(announce: (text: string) => void): Interruption {
  const controller = new AbortController();
  let by: NodeJS.Signals | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    if (by !== undefined) {
      // The one place that ends the process by force: the person asked twice.
      process.exit(exitCodeOf(signal));
    }
    by = signal;
    announce(
      `stopping in an orderly way; ${signal === "SIGINT" ? "press Ctrl-C again" : "a second signal"} ends at once\n`,
    );
    controller.abort();
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  return {
    signal: controller.signal,
    get by() {
      return by;
    },
    [Symbol.dispose]() {
      for (const name of SIGNALS) process.off(name, onSignal);
    },
  };
}

/** Writes to a file descriptor now, whatever happens next; a closed pipe is ignored. */
export function writeNow(descriptor: number, text: string): void {
  try {
    writeSync(descriptor, text);
  } catch {
    // Nobody reads any more.
  }
}
