import { expect, test } from "vitest";
import { OperationalError } from "../../src/base/errors.ts";
import { loadChalk } from "../../src/cli/colors.ts";
import type { CliContext } from "../../src/cli/context.ts";
import { Output } from "../../src/cli/output.ts";
import { tellFailure } from "../../src/cli/wizard/asking.ts";

test("tells the same mistake again when it is made again", async () => {
  let text = "";
  const stream = {
    write(piece: string | Uint8Array) {
      text += String(piece);
      return true;
    },
  };
  const paint = (await loadChalk())(false);
  const flags = { json: false, quiet: false, verbose: false, redact: (one: string) => one };
  const output = new Output({ stdout: stream, stderr: stream, paint, paintErr: paint, ...flags });
  const wrong = new OperationalError("cannot connect to shop: the password is wrong", {
    kind: "database",
    code: "denied",
    hint: "Check it.",
  });

  for (let attempt = 1; attempt <= 2; attempt++) tellFailure({ output } as CliContext, wrong);

  const line = "warning: cannot connect to shop: the password is wrong. Check it.\n";
  expect(text).toBe(line + line);
});
