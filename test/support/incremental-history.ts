import { expect } from "vitest";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openMachine } from "./backup-machine.ts";
import { crash } from "./crash-server.ts";
import type { Content } from "./increments.ts";
import { type PostgresMajor, startPostgres } from "./postgres-server.ts";
import { DEEDS, RandomHistory, randomFrom } from "./random-history.ts";
import { openTruth } from "./truth-reader.ts";

/** A crash loses what nobody waited for, and the numbers of its transactions are used again. */
const FLAGS = ["-c", "synchronous_commit=off", "-c", "wal_writer_delay=30ms", "-c", "max_prepared_transactions=8"];

/** Rounds of each of the four histories; 500 of all in CI, more of them by `ROUNDS=10000 npm run soak`. */
export const ROUNDS = Math.ceil(Number(process.env["ROUNDS"] ?? (process.env["CI"] ? 500 : 56)) / 4);
// The same in CI: what a random one finds must not look like the fault of a change.
export const SEED = Number(process.env["SEED"] ?? (process.env["CI"] ? 1 : Date.now() % 1_000_000_000));

/**
 * Backs a random history of a server of its own up again and again, with crashes, stopped runs and prunes in between, and
 * expects of every snapshot the rows and definitions of its instant. Gives in how many runs chunks were carried over.
 */
export async function replayHistory(major: PostgresMajor, isEncrypted: boolean): Promise<number> {
  const random = randomFrom(SEED + major + (isEncrypted ? 1 : 0));
  await using server = await startPostgres(major, FLAGS);
  await using machine = await openMachine(server.url, isEncrypted);
  await using history = await RandomHistory.start(server.url, random);
  await using stack = new AsyncDisposableStack();
  let truth = stack.use(await openTruth(server.url));
  const truths = new Map<string, Content>();
  let keepLast: number | undefined;
  let earlierMark: Manifest["definitionsMark"];
  const seen = new Map<string, number>();
  const count = (what: string) => seen.set(what, (seen.get(what) ?? 0) + 1);
  for (let round = 1; round <= ROUNDS; round++) {
    await history.act(round % 11 === 0 ? 0 : 1 + ((round * 7) % 12));
    if (round % 3 === 0) await history.settle();
    if (round % 13 === 0) {
      await crash(server.url);
      await history.reconnect();
      truth = stack.use(await openTruth(server.url));
      count("crash");
    }
    if (random() < 0.1) {
      const signal = AbortSignal.timeout(Math.floor(random() * 300));
      const isWhole = await machine.run("incremental", { signal }).then(
        () => true,
        (error: unknown) => {
          if (!signal.aborted) throw error;
          return false;
        },
      );
      count(isWhole ? "run that was too fast to be stopped" : "stopped run");
    }
    if (random() < 0.05) await machine.leaveRemains(`20990101T0000${10 + (round % 50)}Z-incremental`);
    if (random() < 0.03) await machine.forget();
    const kind = random() < 0.05 ? "full" : "incremental";
    // Often several times in a row: what one prune saw of dead snapshots is what the next run carries over.
    keepLast = random() < (keepLast === undefined ? 0.12 : 0.7) ? 1 + Math.floor(random() * 6) : undefined;

    const { snapshots, removed } = await machine.run(kind, { keepLast });

    const id = snapshots[0]?.id ?? "";
    truths.set(id, await truth.read());
    const definitions = await truth.readDefinitions();
    const stored = await machine.ids();
    for (const one of truths.keys()) if (!stored.includes(one)) truths.delete(one);
    // After a prune one more of those that are left is restored again, another one each time; in the end all of them are.
    const isLast = round === ROUNDS;
    for (const one of isLast ? stored : removed.length > 0 ? [id, ...sampleOf(stored, round)] : [id]) {
      const rows = truths.get(one);
      if (rows) expect(await machine.contentOf(one), `round ${round}, ${one}`).toEqual(rows);
    }
    const manifest = await machine.manifestOf(id);
    const { definitionsMark: mark } = manifest;
    expect(manifest, `round ${round}, ${id}`).toMatchObject({ ...definitions });
    count(manifest.kind);
    if (mark && mark.rows === earlierMark?.rows && mark.digest === earlierMark.digest) count("same mark");
    earlierMark = mark;
    if (removed.length > 0) count("prune");
    if (manifest.carriedOver) count("carried over");
    for (const { method, reason } of manifest.tables) count(`${method}${reason ? `: ${reason}` : ""}`);
  }
  if (process.env["SHOW"]) {
    const left = DEEDS.filter((deed) => !history.done.has(deed));
    console.log({
      ...Object.fromEntries([...seen, ...[...history.done].filter(([deed]) => DEEDS.includes(deed))]),
      left,
    });
  }
  for (const what of [
    "incremental",
    "delta",
    "unchanged",
    "crash",
    ...(ROUNDS < 100 ? [] : ["prune", "stopped run", "same mark"]),
  ]) {
    expect(seen.get(what) ?? 0, what).toBeGreaterThan(0);
  }
  return seen.get("carried over") ?? 0;
}

/** One older snapshot, another one in each round. */
function sampleOf(stored: readonly string[], round: number): readonly string[] {
  const older = stored.slice(0, -1);
  return older.slice(round % Math.max(1, older.length)).slice(0, 1);
}
