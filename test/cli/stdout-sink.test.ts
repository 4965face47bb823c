import { expect, test } from "vitest";
import { exportToStdout } from "../../src/cli/stdout-sink.ts";

const { signal } = new AbortController();

function collect() {
  const written: Buffer[] = [];
  const stdout = {
    write(data: string | Uint8Array, done?: (error?: unknown) => void) {
      written.push(Buffer.from(data as Uint8Array));
      done?.();
      return true;
    },
  };
  return { to: exportToStdout({ stdout, json: false }), text: () => Buffer.concat(written).toString() };
}

test("an export to stdout may begin again while next to nothing was written", async () => {
  const { to, text } = collect();
  {
    await using first = await to.open();
    await first.append(Buffer.from("first"), signal);
  }

  await using second = await to.open();
  await second.append(Buffer.from("second"), signal);
  await second.finish(signal);

  expect(text()).toBe("second");
});

test("an export to stdout does not begin again behind what was written", async () => {
  const { to, text } = collect();
  const much = Buffer.alloc(100_000, "a");
  {
    await using first = await to.open();
    await first.append(much, signal);
  }

  await using second = await to.open();
  const failure = await second.append(Buffer.alloc(100_000, "b"), signal).catch((error) => error);

  expect(failure).toMatchObject({ kind: "database", code: "cannot-begin-again" });
  expect(text()).toBe(much.toString());
});
