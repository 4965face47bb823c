import { fork } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { findHome, type Home } from "../../src/job/home.ts";
import { takeJobLock } from "../../src/job/job-lock.ts";
import { type Outcome, openStateStore } from "../../src/job/state-store.ts";

let folder: string;
let home: Home;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  home = findHome({ homeFlag: folder, env: {} });
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const run = (outcome: Outcome) => ({
  job: "shop",
  kind: "full" as const,
  startedAt: "2026-11-21T02:00:00.000Z",
  durationMs: 5,
  outcome,
});

describe("the state store", () => {
  test("remembers what stays only for others by destination, in place of what it knew before", async () => {
    using store = await openStateStore(home, () => undefined);
    store.setOnlyForOthers("shop/shop", "near", ["a", "b"]);
    store.setOnlyForOthers("shop/shop", "far", ["a"]);
    store.setOnlyForOthers("other/shop", "near", ["c"]);

    store.setOnlyForOthers("shop/shop", "near", ["b", "d"]);

    const known = ["near", "far", "nowhere"].map((destination) => store.onlyForOthersAt("shop/shop", destination));
    expect(known).toEqual([["b", "d"], ["a"], []]);
  });

  test("counts failures since the last success; skipped runs count for nothing", async () => {
    using store = await openStateStore(home, () => undefined);
    for (const outcome of ["failure", "success", "failure", "skipped", "failure"] as const) store.addRun(run(outcome));

    expect(store.failuresInARow("shop")).toBe(2);
    expect(store.runsOf("shop", 10).map(({ outcome }) => outcome)).toEqual([
      "failure",
      "skipped",
      "failure",
      "success",
      "failure",
    ]);
  });

  test("a drill is in the history but neither a success nor a failure of the job", async () => {
    using store = await openStateStore(home, () => undefined);
    store.addRun(run("failure"));
    for (const outcome of ["success", "failure"] as const) store.addRun({ ...run(outcome), kind: "drill" });

    const state = store.stateOf("shop", "hash");

    expect(store.runsOf("shop", 10).map(({ kind }) => kind)).toEqual(["drill", "drill", "full"]);
    expect([state.failuresInARow, state.lastSuccess, state.lastRun?.kind]).toEqual([1, undefined, "full"]);
  });

  test("records the end of a run once, whoever tells it", async () => {
    using store = await openStateStore(home, () => undefined);
    const begun = store.beginRun(run("success"));

    const told = [store.endRun(begun, { ...run("success"), storedBytes: 7 }), store.endRun(begun, run("failure"))];

    expect(told).toEqual([true, false]);
    expect(store.runsOf("shop", 10)).toMatchObject([{ outcome: "success", storedBytes: 7 }]);
    expect(store.begunRunsOf("shop")).toEqual([]);
  });

  test("goes on with a file that an earlier version made", async () => {
    (await openStateStore(home, () => undefined))[Symbol.dispose]();
    using database = new DatabaseSync(join(home.state, "state.sqlite"));
    database.exec("alter table runs drop column raw_bytes; alter table runs drop column stored_bytes");
    database.exec("drop table begun_runs");
    const warnings: string[] = [];

    using store = await openStateStore(home, (message) => warnings.push(message));
    store.endRun(store.beginRun(run("success")), { ...run("success"), rawBytes: 9 });

    expect(store.runsOf("shop", 10)).toMatchObject([{ rawBytes: 9 }]);
    expect(warnings).toEqual([]);
  });

  test("keeps a job switched off until its file changes", async () => {
    using store = await openStateStore(home, () => undefined);

    store.disable("shop", "hash-1");

    expect([store.stateOf("shop", "hash-1").disabled, store.stateOf("shop", "hash-2").disabled]).toEqual([true, false]);
  });

  test("begins anew, with a warning, when its file is torn", async () => {
    (await openStateStore(home, () => undefined))[Symbol.dispose]();
    await writeFile(join(home.state, "state.sqlite"), "this is no database".repeat(1000));
    const warnings: string[] = [];

    using store = await openStateStore(home, (message) => warnings.push(message));
    store.addRun(run("success"));

    expect(warnings).toEqual([expect.stringContaining("could not be read")]);
    expect((await readdir(home.state)).some((name) => name.includes("damaged"))).toBe(true);
  });

  test("is left as it is when it cannot be opened though nothing is torn", async () => {
    await mkdir(join(home.state, "state.sqlite"), { recursive: true });

    await expect(openStateStore(home, () => undefined)).rejects.toMatchObject({ kind: "usage", code: "home" });

    expect(await readdir(home.state)).toEqual(["state.sqlite"]);
  });
});

describe("the lock of a job", () => {
  test("is held by one command at a time and names its holder", async () => {
    using _lock = await takeJobLock(home, "shop", { command: "sync", now: new Date("2026-11-21T02:00:00Z") });

    const second = takeJobLock(home, "shop", { command: "prune", now: new Date() });

    await expect(second).rejects.toMatchObject({ kind: "locked", exitCode: 8 });
    await expect(second).rejects.toThrow(
      `cannot prune shop: rowkeep sync is at work on it (process ${process.pid} on ${hostname()}, since 2026-11-21T02:00:00.000Z)`,
    );
    using other = await takeJobLock(home, "crm", { command: "sync", now: new Date() });
    expect(other.job).toBe("crm");
  });

  test("says when the disk, not another command, is in its way", async () => {
    await mkdir(join(home.state, "locks", "shop.lock"), { recursive: true });

    const taking = takeJobLock(home, "shop", { command: "run", now: new Date() });

    await expect(taking).rejects.toMatchObject({ kind: "usage", code: "home" });
    await expect(taking).rejects.toThrow(/^cannot use .*shop\.lock: unable to open database file$/);
  });

  test("is free again when its holder was killed", async () => {
    const script = join(folder, "hold.ts");
    const source = new URL("../../src/job/job-lock.ts", import.meta.url).href;
    await writeFile(
      script,
      `const { takeJobLock } = await import(${JSON.stringify(source)});
       await takeJobLock(${JSON.stringify(home)}, "shop", { command: "sync", now: new Date() });
       process.send("held"); setInterval(() => undefined, 1000);`,
    );
    const child = fork(script, { execArgv: [] });
    await new Promise((resolve) => child.once("message", resolve));
    await expect(takeJobLock(home, "shop", { command: "sync", now: new Date() })).rejects.toMatchObject({
      kind: "locked",
    });

    child.kill("SIGKILL");
    await new Promise((resolve) => child.once("exit", resolve));

    using lock = await takeJobLock(home, "shop", { command: "sync", now: new Date() });
    expect(lock.job).toBe("shop");
  });
});
