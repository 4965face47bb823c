import { hash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { generateKeyPair } from "../../src/archive/age-keys.ts";
import { OperationalError } from "../../src/base/errors.ts";
import type { Destination } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { findHome } from "../../src/job/home.ts";
import { type Job, readJob } from "../../src/job/read-job.ts";
import { openStateStore, type StateStore } from "../../src/job/state-store.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { renderSnapshotId } from "../../src/snapshot/snapshot-id.ts";
import { createKeyRing } from "../../src/snapshot/snapshot-key.ts";
import { pruneDatabase, type PruneResult } from "../../src/usecases/prune-database.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import { createFolder, never, PREFIX, type TestFolder, writeSample } from "../snapshot/sample-snapshot.ts";

/** More of them by `ROWKEEP_PRUNE_ROUNDS=1000`; one of them again by SEED. */
const ROUNDS = Number(process.env["ROWKEEP_PRUNE_ROUNDS"] ?? 6);
// The same in CI: what a random one finds must not look like the fault of a change.
const SEED = Number(process.env["SEED"] ?? (process.env["CI"] ? 1 : Date.now() % 1_000_000_000));
const STEPS = 14;

const pair = await generateKeyPair();
const keys = createKeyRing({ identities: [pair.identity] });

let world: World | undefined;

afterEach(async () => {
  await world?.[Symbol.asyncDispose]();
});

test.each(Array.from({ length: ROUNDS }, (_, round) => SEED + round))(
  "every snapshot that stays can be read after each prune of a random history (SEED=%i)",
  { timeout: 60_000 },
  async (seed) => {
    world = await World.open(seed);
    for (let step = 1; step <= STEPS; step++) {
      await world.act();
      if (world.random() < 0.5) continue;
      const whole = await world.findWhole();

      const withKeys = world.random() < 0.5;
      const result = await world.prune(withKeys);
      const again = await world.prune(withKeys);

      await world.check(whole, result);
      expect(again?.removed ?? [], "asked twice").toEqual([]);
      expect(idsOf(again?.kept)).toEqual(idsOf(result?.kept));
    }
  },
);

const idsOf = (list: PruneResult["kept"] = []) => list.map(({ id, destination }) => `${destination}/${id}`);

/** The ids of the snapshots that verify finds good, by the destination's name, the oldest first. */
type Whole = ReadonlyMap<string, readonly string[]>;

class World implements AsyncDisposable {
  readonly random: () => number;
  readonly #folder: TestFolder;
  readonly #destinations: readonly Destination[];
  readonly #state: StateStore;
  readonly #job: Job;
  readonly #isEncrypted: boolean;
  readonly #manifests = new Map<string, Manifest>();
  readonly #home;
  #now = Date.parse("2026-03-28T22:00:00Z");

  private constructor(options: {
    random: () => number;
    folder: TestFolder;
    destinations: readonly Destination[];
    state: StateStore;
    job: Job;
    home: ReturnType<typeof findHome>;
  }) {
    this.random = options.random;
    this.#folder = options.folder;
    this.#destinations = options.destinations;
    this.#state = options.state;
    this.#job = options.job;
    this.#home = options.home;
    this.#isEncrypted = options.job.encryption !== undefined;
  }

  static async open(seed: number): Promise<World> {
    const random = randomOf(seed);
    const folder = await createFolder();
    const names = random() < 0.5 ? ["near"] : ["near", "far"];
    const destinations = await Promise.all(
      names.map((name) =>
        openLocalDestination({ type: "local", name, path: join(folder.path, name) }, { signal: never }),
      ),
    );
    const home = findHome({ homeFlag: join(folder.path, "home"), env: {} });
    const state = await openStateStore(home, () => undefined);
    const path = join(folder.path, "shop.yaml");
    const places = names.map((name) => `{ type: local, name: ${name}, path: ${name} }`).join(", ");
    const rules = random() < 0.2 ? "naming: overwrite" : `retention: ${policyOf(random)}`;
    const encryption = random() < 0.4 ? `\nencryption: { recipients: [${pair.recipient}] }` : "";
    await writeFile(
      path,
      `version: 1\nname: shop\nsource: { url: "postgres://u@h/shop" }\ndestinations: [${places}]\n` +
        `schedule: { timezone: Europe/Paris }\n${rules}${encryption}\n`,
    );
    const job = await readJob(path, home, { cwd: folder.path });
    return new World({ random, folder, destinations, state, job, home });
  }

  #chance(part: number): boolean {
    return this.random() < part;
  }

  #pick<T>(items: readonly T[]): T | undefined {
    return items[Math.floor(this.random() * items.length)];
  }

  #pathOf(destination: string, ...parts: string[]): string {
    return join(this.#folder.path, destination, "shop", "shop", ...parts);
  }

  /** A new snapshot, mostly; sometimes a pin, a mark, or damage. */
  async act(): Promise<void> {
    const kind = this.random();
    if (kind < 0.75) return this.#store();
    const place = this.#pick(this.#destinations);
    const id = place && this.#pick((await this.findWhole()).get(place.name) ?? []);
    if (!place || id === undefined) return this.#store();
    const repository = openRepository(place, PREFIX);
    const now = new Date(this.#now);
    if (kind < 0.81) await repository.setPinned(id, true, { now, signal: never });
    else if (kind < 0.85) await repository.mark(id, { drilledAt: now.toISOString() }, { signal: never });
    else if (kind < 0.9) await rm(this.#pathOf(place.name, id), { recursive: true });
    else if (kind < 0.95) await truncate(this.#pathOf(place.name, id, "volume-0001.tar"), 512);
    else await this.#spoil(place.name, id);
  }

  async #spoil(place: string, id: string): Promise<void> {
    const name = this.#isEncrypted ? this.#pick(["envelope.json", "manifest.json.age"]) : "manifest.json";
    const path = this.#pathOf(place, id, String(name));
    await rm(path);
    await writeFile(path, "{}");
  }

  /** A destination may be down; the base is any that the others have whole, not only the newest. */
  async #store(): Promise<void> {
    this.#now += 2000 + Math.ceil(this.random() ** 3 * 20 * 86_400_000);
    const destinations = this.#chance(0.8) ? this.#destinations : this.#destinations.slice(0, 1);
    const whole = await this.findWhole();
    const candidates = [...this.#manifests.values()].filter(({ id }) =>
      destinations.every(({ name }) => whole.get(name)?.includes(id)),
    );
    const base = this.#chance(0.7) ? this.#pick(candidates.slice(-3)) : undefined;
    const createdAt = new Date(this.#now).toISOString();
    const kind = base ? "incremental" : "full";
    const id = renderSnapshotId(new Date(this.#now), kind);
    const stored = await writeSample({
      destinations,
      spoolFolder: this.#folder.spool,
      id,
      ...(this.#isEncrypted ? { lock: { recipients: [pair.recipient] } } : {}),
      ...(base ? { base, adopts: () => this.#chance(0.6) } : {}),
      manifest: { createdAt, kind },
    });
    this.#manifests.set(id, stored);
    // What another machine made, this one knows nothing of.
    if (this.#chance(0.3)) return;
    for (const { name } of destinations) this.#state.addStored(PREFIX, name, id);
    if (!this.#isEncrypted) return;
    const envelope = await readFile(this.#pathOf(String(destinations[0]?.name), id, "envelope.json"));
    this.#state.addEncrypted(PREFIX, { id, envelopeSha256: hash("sha256", envelope), tables: stored.tables });
  }

  async findWhole(): Promise<Whole> {
    const whole = new Map<string, readonly string[]>();
    for (const destination of this.#destinations) {
      try {
        const { snapshots } = await verifySnapshot({
          destinations: [destination],
          prefix: PREFIX,
          keys,
          sample: 0.999,
          signal: never,
          report: () => undefined,
        });
        const good = snapshots.filter(({ ok }) => ok).map(({ id }) => id);
        whole.set(destination.name, good.sort());
      } catch (error) {
        if (!(error instanceof OperationalError) || error.code !== "not-found") throw error;
        whole.set(destination.name, []);
      }
    }
    return whole;
  }

  /** Undefined when it was refused, which is always right. */
  async prune(withKeys: boolean): Promise<PruneResult | undefined> {
    try {
      return await pruneDatabase({
        job: this.#job,
        home: this.#home,
        prefix: PREFIX,
        destinations: this.#destinations,
        state: this.#state,
        now: new Date(this.#now),
        keys: withKeys ? keys : undefined,
        dryRun: false,
        acceptMissing: true,
        signal: never,
        report: () => undefined,
      });
    } catch (error) {
      if (!(error instanceof OperationalError) || error.kind !== "refused") throw error;
      return undefined;
    }
  }

  async check(before: Whole, result: PruneResult | undefined): Promise<void> {
    const after = await this.findWhole();
    for (const { name } of this.#destinations) {
      const [old, left] = [before.get(name) ?? [], after.get(name) ?? []];
      const gone = (result?.removed ?? []).filter(({ destination }) => destination === name).map(({ id }) => id);
      const kept = (result?.kept ?? []).filter(({ destination }) => destination === name).map(({ id }) => id);
      for (const id of gone) expect(existsSync(this.#pathOf(name, id)), `${id} is gone`).toBe(false);
      for (const id of kept) expect(existsSync(this.#pathOf(name, id)), `${id} is there`).toBe(true);
      expect(left, `whole ones at ${name} that were not removed`).toEqual(old.filter((id) => !gone.includes(id)));
      expect(left.at(-1), "the newest whole one stays").toBe(old.at(-1));
      for (const id of gone) expect(kept, "each is in one list").not.toContain(id);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#state[Symbol.dispose]();
    await this.#folder[Symbol.asyncDispose]();
  }
}

function policyOf(random: () => number): string {
  const some = (name: string, most: number) => (random() < 0.4 ? [`${name}: ${Math.ceil(random() * most)}`] : []);
  const rules = [...some("keepLast", 3), ...some("keepDaily", 4), ...some("keepWeekly", 2), ...some("keepMonthly", 2)];
  if (random() < 0.2) rules.push("keepWithin: 5d");
  return `{ ${rules.length > 0 ? rules.join(", ") : "keepLast: 1"} }`;
}

/** A small generator with a seed, because `Math.random` has none. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
