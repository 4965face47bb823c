import { loadChalk } from "../../src/cli/colors.ts";
import { Output } from "../../src/cli/output.ts";

/**
 * An output without colours, of which `shown` gives what was written to stdout and stderr so far; `terminal` tells how many
 * columns it has when it is one.
 */
export async function openShownOutput(terminal?: {
  readonly columns: number;
}): Promise<{ readonly output: Output; readonly shown: () => string }> {
  let text = "";
  const stream = {
    isTTY: terminal !== undefined,
    columns: terminal?.columns,
    write(piece: string | Uint8Array) {
      text += String(piece);
      return true;
    },
  };
  const paint = (await loadChalk())(false);
  const flags = { json: false, quiet: false, verbose: false, redact: (one: string) => one };
  return {
    output: new Output({ stdout: stream, stderr: stream, paint, paintErr: paint, ...flags }),
    shown: () => text,
  };
}
