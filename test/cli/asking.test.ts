import { expect, test } from "vitest";
import { OperationalError } from "../../src/base/errors.ts";
import type { CliContext } from "../../src/cli/context.ts";
import { isPort, tellFailure } from "../../src/cli/wizard/asking.ts";
import { openShownOutput } from "../support/shown-output.ts";

test("tells the same mistake again when it is made again", async () => {
  const { output, shown } = await openShownOutput();
  const wrong = new OperationalError("cannot connect to shop: the password is wrong", {
    kind: "database",
    code: "denied",
    hint: "Check it.",
  });

  for (let attempt = 1; attempt <= 2; attempt++) tellFailure({ output } as CliContext, wrong);

  const line = "warning: cannot connect to shop: the password is wrong. Check it.\n";
  expect(shown()).toBe(line + line);
});

test("takes for a port only what a server can listen at", () => {
  const taken = ["0", "1", "5432", "65535", "65536", "99999", "54.3", ""].filter((text) => isPort(text) === true);

  expect(taken).toEqual(["1", "5432", "65535"]);
});
