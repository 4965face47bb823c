import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openDemoShop } from "../../src/usecases/demo/demo-shop.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-demo-test-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const signal = new AbortController().signal;

test("makes about 300,000 rows, damages two tables and the log of them, and stops its server", async () => {
  let port = 0;
  {
    await using shop = await openDemoShop(folder, { signal });
    port = Number(/127\.0\.0\.1:(\d+)/.exec(await readFile(shop.jobFile, "utf8"))?.[1]);
    const before = await shop.fingerprints();

    await shop.damage();

    const after = await shop.fingerprints();
    const damaged = [...before.keys()].filter((table) => before.get(table) !== after.get(table));
    expect(damaged).toEqual(["products", "reviews", "Back Office.audit_log"]);
    expect(shop.totalRows).toBeGreaterThan(280_000);
    expect(shop.tables).toHaveLength(12);
  }

  expect(await answers(port)).toBe(false);
});

test("replaces an earlier demo in the same folder", async () => {
  await writeFile(join(folder, ".rowkeep-demo"), "");
  await writeFile(join(folder, "shop.yaml"), "old");
  await writeFile(join(folder, "notes.txt"), "mine");

  const opening = openDemoShop(folder, { signal: AbortSignal.timeout(1) });

  await expect(opening).rejects.toThrow();
  expect(await readdir(folder)).toEqual(expect.arrayContaining(["notes.txt", "backups", "home"]));
  expect(await readdir(folder)).not.toContain("shop.yaml");
});

test("refuses a folder with anything else in it and leaves it as it is", async () => {
  await writeFile(join(folder, "thesis.txt"), "mine");

  const opening = openDemoShop(folder, { signal });

  await expect(opening).rejects.toMatchObject({ kind: "refused", code: "not-empty" });
  expect(await readdir(folder)).toEqual(["thesis.txt"]);
});

async function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}
