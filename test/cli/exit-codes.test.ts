import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { generateKeyPair } from "../../src/archive/age-keys.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { ID, never, PREFIX, type SampleOptions, writeSample } from "../snapshot/sample-snapshot.ts";
import { useCliPlace } from "../support/cli-place.ts";

const place = useCliPlace();
const { cli } = place;
const OTHER_ID = "20261121T030000Z-full";

beforeEach(async () => {
  const destinations = ["one", "two"].map((name) => ({ type: "local", name, path: name }));
  // Nobody listens there: these commands have no business with the database.
  const source = { url: "postgres://me@127.0.0.1:1/shop" };
  await writeFile(place.file, JSON.stringify({ version: 1, name: "shop", source, destinations }));
});

async function write(names: readonly string[], options: Partial<SampleOptions> = {}): Promise<void> {
  const destinations = await Promise.all(
    names.map((name) =>
      openLocalDestination({ type: "local", name, path: join(place.folder, name) }, { signal: never }),
    ),
  );
  await writeSample({ destinations, spoolFolder: join(place.folder, "spool"), ...options });
}

test("a snapshot that nobody has, or that several could be, is a mistake of the command line: 2", async () => {
  const none = await cli("show", place.file, "latest", "--json");
  await write(["one", "two"]);
  await write(["one", "two"], { id: OTHER_ID, manifest: { createdAt: "2026-11-21T03:00:00.000Z" } });

  const commands = (name: string) => [
    ["show", place.file, name],
    ["cat", place.file, name, "t"],
    ["pin", place.file, name],
    ["verify", place.file, name],
    ["diff", place.file, name, "latest"],
    ["restore", place.file, name, "--plan"],
  ];
  const unknown = [];
  for (const args of commands("20250101")) unknown.push((await cli(...args, "--json")).last());
  const ambiguous = [];
  for (const args of commands("20261121")) ambiguous.push((await cli(...args, "--json")).last());
  const early = await cli("restore", place.file, "--at", "2020-01-01T00:00Z", "--plan", "--json");
  const undo = await cli("undo", place.file, "--json");

  const told = { type: "error", exitCode: 2 };
  expect(none.last()).toMatchObject({ ...told, code: "not-found" });
  for (const error of unknown) expect(error).toMatchObject({ ...told, code: "not-found" });
  for (const error of ambiguous) expect(error).toMatchObject({ ...told, code: "ambiguous" });
  expect(early.last()).toMatchObject({ ...told, code: "not-found" });
  expect(undo.last()).toMatchObject({ ...told, code: "nothing-to-undo" });
});

/** A folder that can be opened, and whose snapshots cannot be listed. */
async function closeFolder(name: string): Promise<void> {
  await rm(join(place.folder, name), { recursive: true, force: true });
  await mkdir(join(place.folder, name));
  await writeFile(join(place.folder, name, PREFIX.split("/")[0] ?? ""), "");
}

/** A file where the folder of a destination was: it cannot even be opened. */
async function closePlace(name: string): Promise<void> {
  await rm(join(place.folder, name), { recursive: true });
  await writeFile(join(place.folder, name), "");
}

test.each([
  ["listed", closeFolder],
  ["opened", closePlace],
] as const)(
  "what did its work although one of two destinations cannot be %s ends with 3 and names it",
  async (_, close) => {
    await write(["one", "two"], {
      manifest: { anomalies: [{ schema: "public", name: "t", kind: "vanished", rowsBefore: 9, rows: 0 }] },
    });
    await close("two");

    const verify = await cli("verify", place.file);
    const pin = await cli("pin", place.file, "latest");
    const json = await cli("pin", place.file, "latest", "--json");
    const cat = await cli("cat", place.file, "latest", "orders");
    const acknowledge = await cli("acknowledge", place.file);
    const show = await cli("show", place.file, "latest");
    const diff = await cli("diff", place.file, "latest", "latest");
    const compare = await cli("compare", place.file, "latest", "--with", "latest");

    const all = { verify, pin, cat, acknowledge, show, diff, compare };
    for (const [name, { exitCode, stderr }] of Object.entries(all)) {
      expect(exitCode, name).toBe(3);
      expect(stderr, name).toMatch(/^warning: .*two/m);
    }
    expect(verify.stdout).toMatch(/^good: .* at one: /);
    expect(pin.stdout).toBe(`pinned: ${ID} at one\n`);
    expect(json.last()).toMatchObject({ destinations: ["one"], warnings: [expect.stringContaining("two")] });
  },
);

test("no destination at all ends with 6, also where none can be listed", async () => {
  await write(["one", "two"]);
  for (const name of ["one", "two"]) await closeFolder(name);

  const verify = await cli("verify", place.file, "--json");
  const pin = await cli("pin", place.file, "latest", "--json");

  for (const { exitCode, last } of [verify, pin]) {
    expect(exitCode).toBe(6);
    expect(last()).toMatchObject({ type: "error" });
  }
});

describe("verify of an encrypted snapshot", () => {
  let identity: string;
  beforeEach(async () => {
    const pair = await generateKeyPair();
    identity = join(place.folder, "mine.key");
    await writeFile(identity, pair.identity);
    await writeFile(join(place.folder, "wrong.key"), (await generateKeyPair()).identity);
    await write(["one", "two"], { lock: { recipients: [pair.recipient] } });
  });

  test("without the key says that only hashes were checked, by 3, a warning and no word of good", async () => {
    const closed = await cli("verify", place.file);
    const json = await cli("verify", place.file, "--json");
    const opened = await cli("verify", place.file, "--identity", identity);

    expect([closed.exitCode, json.exitCode, opened.exitCode]).toEqual([3, 3, 0]);
    expect(closed.stdout).toMatch(new RegExp(`^only hashes verified: ${ID} at one: `));
    expect(closed.stdout).not.toContain("good");
    expect(closed.stderr).toContain("warning: only the hashes of the volumes were checked");
    expect(json.last()).toMatchObject({
      ok: false,
      snapshots: [
        { ok: true, locked: true },
        { ok: true, locked: true },
      ],
    });
  });

  test("with a wrong key is told from damage", async () => {
    const wrong = await cli("verify", place.file, "--identity", join(place.folder, "wrong.key"));
    const json = await cli("verify", place.file, "--identity", join(place.folder, "wrong.key"), "--json");
    const path = join(place.folder, "one", PREFIX, ID, "volume-0001.tar");
    const bytes = await readFile(path);
    bytes[700] = (bytes[700] ?? 0) ^ 1;
    await rm(path);
    await writeFile(path, bytes);
    const damaged = await cli("verify", place.file, "--identity", join(place.folder, "wrong.key"), "--json");

    expect([wrong.exitCode, json.exitCode, damaged.exitCode]).toEqual([7, 7, 7]);
    expect(wrong.stdout).toMatch(new RegExp(`^wrong key: ${ID} at one: `));
    expect(wrong.stdout + wrong.stderr).not.toContain("damaged");
    expect(json.last()["snapshots"]).toMatchObject([
      { ok: false, code: "wrong-key" },
      { ok: false, code: "wrong-key" },
    ]);
    expect(damaged.last()["snapshots"]).toMatchObject([
      { ok: false, code: "damaged" },
      { ok: false, code: "wrong-key" },
    ]);
  });
});

describe.each([
  ["listed", closeFolder],
  ["opened", closePlace],
] as const)("what may be at a destination that cannot be %s is not called unknown: 6", (_, close) => {
  test("a snapshot", async () => {
    await write(["one", "two"]);
    await close("two");

    const show = await cli("show", place.file, "20250101", "--json");
    const pin = await cli("pin", place.file, "20250101", "--json");
    const verify = await cli("verify", place.file, "20250101", "--json");

    for (const { last } of [show, pin, verify]) expect(last()).toMatchObject({ type: "error", exitCode: 6 });
    expect(show.last()["message"]).toMatch(
      /"20250101": there is none with this id where rowkeep could look; two was not read: cannot /,
    );
  });

  test("the first snapshot of a job, and what a restore replaced", async () => {
    await write(["two"]);
    await close("two");
    const none = await cli("show", place.file, "latest", "--json");
    await write(["one"]);

    const undo = await cli("undo", place.file, "--json");

    expect(none.last()).toMatchObject({ type: "error", exitCode: 6 });
    expect(undo.last()).toMatchObject({ type: "error", exitCode: 6 });
    expect(undo.last()["message"]).toMatch(/a safety snapshot where rowkeep could look; two was not read: cannot /);
  });
});

test("list without the job's passphrase says why snapshots are locked and ends with 3", async () => {
  await write(["one", "two"], { lock: { passphrase: "four or more words" } });
  const job = JSON.parse(await readFile(place.file, "utf8")) as object;
  const open = JSON.stringify({ ...job, encryption: { passphrase: "${env:ROWKEEP_TEST_PHRASE}" } });
  await writeFile(place.file, open);

  const locked = await cli("list", place.file);
  const json = await cli("list", place.file, "--json");

  expect([locked.exitCode, json.exitCode]).toEqual([3, 3]);
  expect(locked.stdout).toMatch(/locked/);
  expect(locked.stderr).toMatch(/^warning: .*the environment has no ROWKEEP_TEST_PHRASE/m);
  expect(json.last()).toMatchObject({
    snapshots: [{ id: ID, locked: "key-needed" }],
    warnings: [expect.stringContaining("ROWKEEP_TEST_PHRASE")],
  });
});

test("a wrong schedule stops what backs up and prunes, but nothing that only reads snapshots", async () => {
  await write(["one", "two"]);
  const job = JSON.parse(await readFile(place.file, "utf8")) as object;
  await writeFile(place.file, JSON.stringify({ ...job, schedule: { full: "61 * * * *" } }));

  const reading = {
    list: await cli("list", place.file),
    show: await cli("show", place.file, "latest"),
    cat: await cli("cat", place.file, "latest", "orders"),
    diff: await cli("diff", place.file, "latest", "latest"),
    compare: await cli("compare", place.file, "latest", "--with", "latest"),
    verify: await cli("verify", place.file),
  };
  const database = {
    restore: await cli("restore", place.file, "--plan"),
    drill: await cli("verify", place.file, "--drill"),
  };
  const refused = [
    await cli("run", place.file),
    await cli("prune", place.file),
    await cli("job", "validate", place.file),
  ];
  await writeFile(place.file, JSON.stringify({ ...job, schedule: { full: "61 * * * *" }, naming: "odd" }));
  const worse = await cli("list", place.file, "--json");

  for (const [name, { exitCode, stderr }] of Object.entries(reading)) {
    expect(exitCode, name).toBe(3);
    expect(stderr, name).toMatch(/^warning: cannot use the job file .*schedule\.full/m);
  }
  // They come as far as the database, where nobody listens.
  expect([database.restore.exitCode, database.drill.exitCode]).toEqual([5, 5]);
  expect(refused.map(({ exitCode }) => exitCode)).toEqual([2, 2, 2]);
  expect(worse.last()).toMatchObject({
    type: "error",
    exitCode: 2,
    message: expect.stringContaining("naming"),
  });
});

test("job list and status show all jobs, name an unusable one and end with 2", async () => {
  await mkdir(join(place.home, "jobs"), { recursive: true });
  await writeFile(join(place.home, "jobs", "good.yaml"), await readFile(place.file, "utf8"));
  await writeFile(join(place.home, "jobs", "torn.yaml"), "version: 1\nsorce: {}\n");

  const list = await cli("job", "list");
  const json = await cli("job", "list", "--json");
  const status = await cli("status");

  expect([list.exitCode, json.exitCode, status.exitCode]).toEqual([2, 2, 2]);
  expect(list.stdout).toMatch(/^shop .*never ran/m);
  expect(list.stdout).toMatch(/^torn .*unusable/m);
  expect(list.stderr).toMatch(/^warning: torn: .*sorce/m);
  expect(json.last()["jobs"]).toMatchObject([
    { name: "shop" },
    { name: "torn", problem: expect.stringContaining("sorce") },
  ]);
});
