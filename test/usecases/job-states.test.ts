import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { findHome, type Home } from "../../src/job/home.ts";
import { takeJobLock } from "../../src/job/job-lock.ts";
import { openStateStore, type RunRecord } from "../../src/job/state-store.ts";
import { readJobStates } from "../../src/usecases/job-states.ts";

const NOW = new Date("2026-11-21T03:00:00Z");

let folder: string;
let home: Home;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  home = findHome({ homeFlag: folder, env: {} });
  await mkdir(home.jobs, { recursive: true });
  await writeFile(
    join(home.jobs, "shop.yaml"),
    `version: 1\nname: shop\nsource: { url: "postgres://u@h/shop" }\ndestinations: [{ type: local, path: ./backups }]\n`,
  );
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const warn = () => undefined;
const states = () => readJobStates(home, { cwd: folder, now: NOW, warn });

async function addRuns(...runs: readonly Partial<RunRecord>[]): Promise<void> {
  using state = await openStateStore(home, warn);
  const run = { job: "shop", kind: "full", startedAt: NOW.toISOString(), durationMs: 1, outcome: "success" } as const;
  for (const more of runs) state.addRun({ ...run, ...more });
}

test("a job tells its last full and its last incremental, each of those that succeeded", async () => {
  await addRuns(
    { startedAt: "2026-11-20T02:00:00.000Z" },
    { kind: "incremental", startedAt: "2026-11-20T03:00:00.000Z", outcome: "warning" },
    { kind: "incremental", startedAt: "2026-11-20T04:00:00.000Z", outcome: "failure" },
  );

  const [shop] = await states();

  expect(shop).toMatchObject({
    state: "failed",
    lastFull: "2026-11-20T02:00:00.000Z",
    lastIncremental: "2026-11-20T03:00:00.000Z",
    lastSuccess: "2026-11-20T03:00:00.000Z",
  });
});

test("a run that began and holds no lock any more has failed; one that holds it has not", async () => {
  using store = await openStateStore(home, warn);
  store.beginRun({ job: "shop", kind: "full", startedAt: NOW.toISOString() });
  const lock = await takeJobLock(home, "shop", { command: "sync", now: NOW });

  const [during] = await states();
  lock[Symbol.dispose]();
  const [after] = await states();

  expect([during?.state, during?.failuresInARow]).toEqual(["running", 0]);
  expect([after?.state, after?.failuresInARow]).toEqual(["failed", 1]);
});

test("a job is running as long as a process holds its lock, and asking takes the lock from nobody", async () => {
  await addRuns({});
  const lock = await takeJobLock(home, "shop", { command: "sync", now: NOW });

  const [during] = await states();
  await expect(takeJobLock(home, "shop", { command: "sync", now: NOW })).rejects.toMatchObject({ kind: "locked" });
  lock[Symbol.dispose]();
  const [after] = await states();

  expect([during?.state, after?.state]).toEqual(["running", "ok"]);
  using again = await takeJobLock(home, "shop", { command: "sync", now: NOW });
  expect(again.job).toBe("shop");
});
