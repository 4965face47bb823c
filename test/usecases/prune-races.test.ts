import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Destination, destinationError } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { findHome, type Home } from "../../src/job/home.ts";
import { type Job, readJob } from "../../src/job/read-job.ts";
import { findReads } from "../../src/job/read-lease.ts";
import { openStateStore, type StateStore } from "../../src/job/state-store.ts";
import { chooseTable } from "../../src/plan/table-patterns.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { makeRemovalMarkName, putRemovalMark } from "../../src/snapshot/removal-mark.ts";
import { parseSnapshotId } from "../../src/snapshot/snapshot-id.ts";
import { backUpOne } from "../../src/usecases/back-up-one.ts";
import { openLeasedReader } from "../../src/usecases/open-leased-reader.ts";
import { pruneDatabase } from "../../src/usecases/prune-database.ts";
import { removeGarbage } from "../../src/usecases/remove-garbage.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import { collect, createFolder, never, PREFIX, type TestFolder, writeSample } from "../snapshot/sample-snapshot.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase } from "../support/postgres.ts";

const [FIRST, SECOND, THIRD] = ["20261101T020000Z-full", "20261102T020000Z-full", "20261103T020000Z-full"] as const;
const INCREMENT = "20261103T010000Z-incremental";
const NOW = new Date("2026-11-03T03:00:00Z");

let folder: TestFolder;
let near: Destination;
let home: Home;
let state: StateStore;

beforeEach(async () => {
  folder = await createFolder();
  near = await openLocalDestination(
    { type: "local", name: "near", path: join(folder.path, "near") },
    { signal: never },
  );
  home = findHome({ homeFlag: join(folder.path, "home"), env: {} });
  state = await openStateStore(home, () => undefined);
});

afterEach(async () => {
  state[Symbol.dispose]();
  await folder[Symbol.asyncDispose]();
});

const pathOf = (...parts: string[]) => join(folder.path, "near", "shop", "shop", ...parts);
const keyOf = (id: string, name: string) => `${PREFIX}/${id}/${name}`;
const idsOf = (list: readonly { readonly id: string }[]) => list.map(({ id }) => id);

/** Stores a snapshot; with a base all its rows are those of the base. */
async function store(id: string, base?: Manifest, destination: Destination = near): Promise<Manifest> {
  const { takenAt, kind } = parseSnapshotId(id) ?? { takenAt: NOW, kind: "full" };
  const manifest = { createdAt: takenAt.toISOString(), kind };
  const more = base ? { base, adopts: () => true } : {};
  return writeSample({ destinations: [destination], spoolFolder: folder.spool, id, manifest, ...more });
}

async function jobOf(url = "postgres://u@h/shop"): Promise<Job> {
  const path = join(folder.path, "shop.yaml");
  await writeFile(
    path,
    `version: 1\nname: shop\nsource: { url: "${url}" }\ndestinations: [{ type: local, name: near, path: near }]\nretention: { keepLast: 1 }\n`,
  );
  return readJob(path, home, { cwd: folder.path });
}

async function prune(destination: Destination = near, signal = never) {
  return pruneDatabase({
    job: await jobOf(),
    home,
    prefix: PREFIX,
    destinations: [destination],
    state,
    now: NOW,
    dryRun: false,
    acceptMissing: false,
    signal,
    report: () => undefined,
  });
}

/** A destination at which something happens, or fails, before a mark is stored. */
function beforeMark(act: () => Promise<unknown>): Destination {
  return {
    name: near.name,
    put: async (key, open, options) => {
      if (key.includes("/removing-")) await act();
      return near.put(key, open, options);
    },
    get: (...args) => near.get(...args),
    stat: (...args) => near.stat(...args),
    list: (...args) => near.list(...args),
    remove: (...args) => near.remove(...args),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

describe("a prune beside a run of another machine", () => {
  test("keeps what a snapshot refers to that was stored since the list", async () => {
    const first = await store(FIRST);
    await store(SECOND);
    await store(THIRD);
    let stored: Promise<unknown> | undefined;

    const result = await prune(beforeMark(() => (stored ??= store(INCREMENT, first))));

    expect(idsOf(result.removed)).toEqual([SECOND]);
    expect(result.kept[0]).toMatchObject({ id: FIRST, reasons: [`${INCREMENT} needs it`] });
    expect(result.warnings).toEqual([]);
    expect(idsOf((await prune()).removed)).toEqual([FIRST, INCREMENT]);
  });

  test("lets no incremental come into being whose base it is about to remove", async () => {
    const first = await store(FIRST);
    const name = makeRemovalMarkName();
    await putRemovalMark(near, keyOf(FIRST, name), { now: NOW, signal: never });

    const storing = store(INCREMENT, first);

    await expect(storing).rejects.toMatchObject({ code: "missing-reference" });
    expect(existsSync(pathOf(INCREMENT))).toBe(false);
  });

  test("takes back an incremental whose base was marked behind its manifest", async () => {
    const first = await store(FIRST);
    const marking: Destination = {
      ...beforeMark(async () => undefined),
      put: async (key, open, options) => {
        await near.put(key, open, options);
        if (!key.endsWith("manifest.json")) return;
        await putRemovalMark(near, keyOf(FIRST, makeRemovalMarkName()), { now: NOW, signal: never });
      },
    };

    const storing = store(INCREMENT, first, marking);

    // It was marked before the second look: who removes may not have seen the manifest.
    await expect(storing).rejects.toMatchObject({ code: "missing-reference" });
    expect(existsSync(pathOf(INCREMENT))).toBe(false);
    expect(existsSync(pathOf(FIRST, "manifest.json"))).toBe(true);
  });

  test("makes a full of an incremental whose base goes while it is made", async () => {
    await using database = await createDatabase(18, "create table t (id int primary key); insert into t values (1)");
    const options = {
      job: await jobOf(database.url),
      home,
      stallTimeoutMs: 60_000,
      kind: "incremental",
      signal: never,
      report: () => undefined,
    } as const;
    const one = {
      connection: connectionOfUrl(database.url),
      choose: chooseTable({}),
      lock: undefined,
      keys: undefined,
      destinations: [near],
      brake: { findAnomalies: () => [], noLongerWanted: { excluded: [], schemaOnly: [] } },
      warn: () => undefined,
    };
    const base = await backUpOne(options, one);
    const prefix = `shop/${database.name}`;
    let begun = 0;
    const onBegin = () => {
      begun += 1;
      if (begun === 1) rmSync(join(folder.path, "near", prefix, base.result.manifest.id), { recursive: true });
    };

    const { result, reason } = await backUpOne(options, { ...one, onBegin });

    expect([begun, result.manifest.kind]).toEqual([2, "full"]);
    expect(reason).toContain(base.result.manifest.id);
    expect(result.manifest.trust).toBeDefined();
  });

  test("removes snapshots where not even a mark has room", async () => {
    for (const id of [FIRST, SECOND]) await store(id);

    const result = await prune(
      beforeMark(async () => {
        throw destinationError("cannot write: no space left", "full");
      }),
    );

    expect(idsOf(result.removed)).toEqual([FIRST]);
    expect(existsSync(pathOf(FIRST))).toBe(false);
  });

  test("stopped behind its marks, takes them away and leaves every snapshot whole", async () => {
    for (const id of [FIRST, SECOND, THIRD]) await store(id);
    const stop = new AbortController();
    const stopping: Destination = {
      ...beforeMark(async () => undefined),
      list: (prefix, options) => {
        if (existsSync(pathOf(SECOND)) && readdirSync(pathOf(SECOND)).some((name) => name.startsWith("removing-")))
          stop.abort(new DOMException("stopped", "AbortError"));
        return near.list(prefix, options);
      },
    };

    const pruning = prune(stopping, stop.signal);

    await expect(pruning).rejects.toMatchObject({ name: "AbortError" });
    for (const id of [FIRST, SECOND])
      expect(readdirSync(pathOf(id)).sort()).toEqual(["manifest.json", "volume-0001.tar"]);
    expect(idsOf((await prune()).removed)).toEqual([FIRST, SECOND]);
  });

  test("takes away the marks of a dead prune, and not those of a living one", async () => {
    await store(FIRST);
    const [old, young] = [makeRemovalMarkName(), makeRemovalMarkName()];
    for (const name of [old, young]) await putRemovalMark(near, keyOf(FIRST, name), { now: NOW, signal: never });
    const yesterday = new Date(Date.now() - 86_400_000);
    await utimes(pathOf(FIRST, old), yesterday, yesterday);

    await removeGarbage({
      destinations: [near],
      prefix: PREFIX,
      now: new Date(),
      warn: () => undefined,
      signal: never,
    });

    expect([existsSync(pathOf(FIRST, old)), existsSync(pathOf(FIRST, young))]).toEqual([false, true]);
    expect(existsSync(pathOf(FIRST, "manifest.json"))).toBe(true);
  });
});

describe("a prune beside a reader of the same machine", () => {
  test("leaves what is read, and what that refers to, until the reader is done", async () => {
    const first = await store(FIRST);
    const manifest = await store(INCREMENT, first);
    await store(THIRD);
    const read = { destinations: [near], prefix: PREFIX, manifest, signal: never };
    const reader = await openLeasedReader({ ...read, home, purpose: "restore" });

    const during = await prune();
    await reader[Symbol.asyncDispose]();
    const after = await prune();

    expect(during.removed).toEqual([]);
    expect(during.warnings).toEqual([]);
    expect(during.kept.map(({ reasons }) => reasons[0])).toEqual([
      `${INCREMENT} needs it`,
      `process ${process.pid} reads it (restore)`,
      "last good",
    ]);
    expect(idsOf(after.removed)).toEqual([FIRST, INCREMENT]);
    expect(existsSync(pathOf(FIRST))).toBe(false);
  });

  test("waits for no reader that died", async () => {
    const code =
      `const { takeReadLease } = await import(${JSON.stringify(new URL("../../src/job/read-lease.ts", import.meta.url).href)});` +
      `await takeReadLease(${JSON.stringify(home)}, { prefix: "p", ids: ["x"], purpose: "verify" });` +
      `process.stdout.write("held"); setInterval(() => undefined, 1000);`;
    const reader = spawn(process.execPath, ["--input-type=module", "-e", code], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(reader.stdout, "data");
    const alive = await findReads(home);

    reader.kill("SIGKILL");
    await once(reader, "exit");

    expect(alive).toMatchObject([{ prefix: "p", ids: ["x"], purpose: "verify", pid: reader.pid }]);
    expect(await findReads(home)).toEqual([]);
  });
});

describe("a reader whose snapshot another machine removes", () => {
  test("says so, and not that a volume is missing", async () => {
    const first = await store(FIRST);
    const manifest = await store(INCREMENT, first);
    await using reader = openSnapshotReader({ destinations: [near], prefix: PREFIX, manifest, signal: never });
    rmSync(pathOf(FIRST), { recursive: true });

    const reading = collect(reader.chunks(manifest.tables[0]?.segments[0]?.chunks ?? [], { signal: never }));

    await expect(reading).rejects.toMatchObject({ code: "removed", message: expect.stringContaining(FIRST) });
  });

  test("does not call it damaged when it verifies them all", async () => {
    for (const id of [FIRST, SECOND]) await store(id);
    const warnings: string[] = [];
    const announce = async (ids: readonly string[]) => {
      if (ids[0] === FIRST) rmSync(pathOf(FIRST), { recursive: true });
      return { [Symbol.dispose]: () => undefined };
    };

    const result = await verifySnapshot({
      destinations: [near],
      prefix: PREFIX,
      announce,
      signal: never,
      report: (event) => event.type === "warning" && warnings.push(event.message),
    });

    expect(result).toMatchObject({ ok: true, snapshots: [{ id: SECOND }] });
    expect(warnings).toEqual([`${FIRST} at near was removed while it was verified`]);
  });
});
