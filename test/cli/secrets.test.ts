import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { redactUrls } from "../../src/cli/redaction.ts";
import { runCli } from "../support/cli.ts";

test.each([
  "postgres://me:canary@db.example:5432/shop",
  "postgres://:canary@db.example/shop",
  "postgres://me:can@canary@db.example/shop",
  "postgres://me:can/canary@db.example/shop",
  "s3+https://key:canary@minio/bucket",
  "postgres://db.example/shop?user=me&password=canary&x=1",
])("hides the password of %s and leaves the host", (url) => {
  const text = redactUrls(`cannot connect to ${url}: refused`);

  expect(text).not.toContain("canary");
  expect(text).toMatch(/(db\.example|minio)/);
});

test("leaves ordinary text alone", () => {
  const text = "cannot read https://example.com/a?b=1: mail me@example.com at 10:30 @ noon";

  expect(redactUrls(text)).toBe(text);
});

test("shows no password of the command line in any output", async () => {
  const url = "postgres://me:canary-1@127.0.0.1:1/shop";
  const results = await Promise.all([
    runCli(["list", url]),
    runCli(["list", url, "--json"]),
    runCli(["list", `--url=${url}`]),
    runCli(["list", `--url=${url}`, "--json"]),
    runCli([url, "-v"]),
  ]);

  for (const { exitCode, stdout, stderr } of results) {
    expect(exitCode).toBe(2);
    expect(stdout + stderr).not.toContain("canary");
    expect(stdout + stderr).not.toBe("");
  }
});

test("keeps the words that scripts read, whatever the password is, and hides it in all others", async () => {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  try {
    const run = (password: string) =>
      runCli(["export", "postgres://me:${env:SHOP_PW}@127.0.0.1:1/shop", "shop.rowkeep", "--json"], {
        cwd: folder,
        env: { SHOP_PW: password },
      });

    const plain = await run("canary-1");
    const code = await run("unreachable");
    const type = await run("error");

    const { message, ...words } = plain.last();
    expect(words).toMatchObject({ type: "error", code: "unreachable" });
    for (const { last } of [code, type]) expect(last()).toMatchObject({ type: "error", code: "unreachable" });
    expect(String(message)).toContain("127.0.0.1");
    expect(code.stdout.replace('"code":"unreachable"', "")).not.toContain("unreachable");
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
