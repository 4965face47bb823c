import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { ID, never, PREFIX, writeSample } from "../snapshot/sample-snapshot.ts";
import { runCliHere } from "../support/cli.ts";

let folder: string;
let file: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  file = join(folder, "shop.yaml");
  const destinations = ["one", "two"].map((name) => ({ type: "local", name, path: name }));
  // Nobody listens there: a sync has no business with the database.
  const source = { url: "postgres://me@127.0.0.1:1/shop" };
  await writeFile(file, JSON.stringify({ version: 1, name: "shop", source, destinations }));
  const one = await openLocalDestination({ type: "local", path: join(folder, "one") }, { signal: never });
  await writeSample({ destinations: [one], spoolFolder: join(folder, "spool"), volumeBytes: 16 * 1024 });
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const cli = (...args: string[]) => runCliHere(args, { home: join(folder, "home"), cwd: folder });

test("rowkeep sync tells what is missing, copies it, and list shows it at both places", async () => {
  const planned = await cli("sync", file, "--dry-run");
  const isMade = existsSync(join(folder, "two"));
  const copied = await cli("sync", file);
  const again = await cli("sync", file, "--json");
  const listed = await cli("list", file, "--json");

  expect([planned.exitCode, copied.exitCode, again.exitCode, listed.exitCode]).toEqual([3, 0, 0, 0]);
  expect(planned.stdout).toMatch(new RegExp(`^missing: ${ID} at two: 2 volumes, .* from one$`, "m"));
  expect(planned.stderr).toContain("cannot open two: its folder does not exist; sync makes it");
  expect(isMade).toBe(false);
  expect(copied.stdout).toMatch(new RegExp(`^copied: ${ID} at two: 2 volumes, .* from one$`, "m"));
  expect(again.last()).toMatchObject({ type: "result", dryRun: false, snapshots: [], damaged: [], warnings: [] });
  expect(listed.last()["snapshots"]).toMatchObject([{ id: ID, destinations: ["one", "two"] }]);
});

test("rowkeep sync --dry-run makes no folder where all are missing, and plans nothing from one that is", async () => {
  const from = await cli("sync", file, "--dry-run", "--from", "two", "--json");
  await rm(join(folder, "one"), { recursive: true });
  const none = await cli("sync", file, "--dry-run", "--json");

  expect([from.exitCode, from.last()["code"]]).toEqual([6, "not-found"]);
  expect([none.exitCode, none.last()["snapshots"]]).toEqual([3, []]);
  expect(["one", "two"].map((name) => existsSync(join(folder, name)))).toEqual([false, false]);
});

test("rowkeep sync tells by its exit code what could not be completed", async () => {
  const unknown = await cli("sync", file, "--from", "three", "--json");
  await rm(join(folder, "one", PREFIX, ID, "volume-0002.tar"));
  const damaged = await cli("sync", file, "--json");
  await rm(join(folder, "two"), { recursive: true });
  await writeFile(join(folder, "two"), "");
  const one = await cli("sync", file, "--json");
  await rm(join(folder, "one"), { recursive: true });
  await writeFile(join(folder, "one"), "");
  const none = await cli("sync", file, "--json");

  expect([unknown.exitCode, damaged.exitCode, one.exitCode, none.exitCode]).toEqual([2, 7, 3, 6]);
  expect(damaged.last()["snapshots"]).toMatchObject([
    { id: ID, destination: "one", status: "failed" },
    { id: ID, destination: "two", status: "failed" },
  ]);
  expect(one.last()["destinations"]).toMatchObject([{ name: "one" }, { name: "two", status: "failed" }]);
  expect(none.last()).toMatchObject({
    type: "error",
    message: expect.stringMatching(/^cannot open any of the 2 destinations: cannot open one: .*; cannot open two: /),
  });
});

test("rowkeep sync repairs a damaged manifest, names it by a warning, and finds nothing once it is whole", async () => {
  expect((await cli("sync", file)).exitCode).toBe(0);
  const manifest = (name: string) => join(folder, name, PREFIX, ID, "manifest.json");
  const { length } = await readFile(manifest("two"));
  await writeFile(manifest("two"), Buffer.alloc(length));

  const planned = await cli("sync", file, "--dry-run");
  const repaired = await cli("sync", file);
  const again = await cli("sync", file);
  for (const name of ["one", "two"]) await writeFile(manifest(name), Buffer.alloc(length));
  const lost = await cli("sync", file);

  expect([planned.exitCode, repaired.exitCode, again.exitCode, lost.exitCode]).toEqual([3, 3, 0, 7]);
  expect(planned.stdout).toBe(`missing: ${ID} at two: the manifest or what lies beside it\n`);
  expect(repaired.stdout).toBe(`copied: ${ID} at two: the manifest or what lies beside it\n`);
  expect(repaired.stderr).toContain(`two/${PREFIX}/${ID}/manifest.json`);
  expect(again.stdout).toBe("nothing is missing at 2 destinations\n");
  expect(lost.stdout).toBe("");
  expect(lost.stderr).toContain(`${ID} cannot be copied`);
});

test("rowkeep sync --all reads what it has read before, and verify makes sync read what it found damaged", async () => {
  await cli("sync", file);
  expect((await cli("sync", file)).exitCode).toBe(0);
  const path = join(folder, "two", PREFIX, ID, "manifest.json");
  const { size, atime, mtime } = await stat(path);
  const rot = async () => {
    await writeFile(path, Buffer.alloc(size));
    await utimes(path, atime, mtime);
  };
  await rot();

  const unseen = await cli("sync", file);
  const all = await cli("sync", file, "--all", "--dry-run");
  const verified = await cli("verify", file, ID);
  const repaired = await cli("sync", file);

  expect([unseen.exitCode, all.exitCode, verified.exitCode, repaired.exitCode]).toEqual([0, 3, 7, 3]);
  expect(all.stdout).toContain(`missing: ${ID} at two`);
  expect(repaired.stdout).toContain(`copied: ${ID} at two`);
});
