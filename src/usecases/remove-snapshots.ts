import { OperationalError } from "../base/errors.ts";
import { makeLimit } from "../base/limit.ts";
import type { Destination } from "../destinations/destination.ts";
import type { Home } from "../job/home.ts";
import { findReads } from "../job/read-lease.ts";
import type { StateStore } from "../job/state-store.ts";
import { referrersFirst, type RetainableSnapshot } from "../plan/plan-retention.ts";
import { makeRemovalMarkName, putRemovalMark } from "../snapshot/removal-mark.ts";
import { openRepository, type Repository } from "../snapshot/repository.ts";
import { parseSnapshotId } from "../snapshot/snapshot-id.ts";
import { readParts } from "../snapshot/snapshot-parts.ts";
import { ENCRYPTED_MANIFEST_NAME } from "../snapshot/manifest-text.ts";

export interface RemoveSnapshotsOptions {
  readonly home: Home;
  readonly prefix: string;
  readonly state: StateStore;
  readonly signal: AbortSignal;
}

export interface Removal {
  /** The snapshots that are still there, and why. */
  readonly stayed: ReadonlyMap<string, Stay>;
  /** What could not be removed of those that are gone. */
  readonly left: readonly string[];
}

export interface Stay {
  readonly reason: string;
  /** It could not be removed; otherwise somebody needs it just now. */
  readonly isFailure: boolean;
}

/**
 * Removes snapshots from a destination, each one before those that it refers to. What somebody reads on this machine stays,
 * and so does what a snapshot refers to that came since `snapshots` were listed, from whatever machine: see removal-mark.ts.
 * What cannot be removed keeps nothing else from going.
 */
export async function removeSnapshots(
  destination: Destination,
  ids: readonly string[],
  snapshots: readonly RetainableSnapshot[],
  options: RemoveSnapshotsOptions,
): Promise<Removal> {
  const remover = new Remover(destination, snapshots, options);
  const queue = [...referrersFirst(ids, snapshots)];
  try {
    while (queue.length > 0) queue.unshift(...(await remover.removeSome(queue.splice(0, BATCH))));
  } finally {
    await remover.withdrawAll();
  }
  return remover.removalOf(ids);
}

/** So many are announced and looked after together: one more list for each batch. */
const BATCH = 500;
const MARKS_AT_ONCE = 4;
/** Others take marks for those of a dead prune after six hours. A machine that slept looks again. */
const MARKS_HOLD_MS = 3_600_000;
const CLEAN_UP_MS = 10_000;

class Remover {
  readonly #destination: Destination;
  readonly #options: RemoveSnapshotsOptions;
  readonly #repository: Repository;
  readonly #referencesOf: ReadonlyMap<string, readonly string[]>;
  readonly #known: ReadonlySet<string>;
  readonly #markName = makeRemovalMarkName();
  readonly #marked = new Set<string>();
  readonly #stayed = new Map<string, Stay>();
  readonly #left: string[] = [];

  constructor(destination: Destination, snapshots: readonly RetainableSnapshot[], options: RemoveSnapshotsOptions) {
    this.#destination = destination;
    this.#options = options;
    this.#repository = openRepository(destination, options.prefix);
    this.#known = new Set(options.state.storedAt(options.prefix, destination.name));
    this.#referencesOf = new Map(snapshots.map(({ id, references }) => [id, references]));
  }

  removalOf(ids: readonly string[]): Removal {
    const wanted = new Set(ids);
    return { stayed: new Map([...this.#stayed].filter(([id]) => wanted.has(id))), left: this.#left };
  }

  /** Gives those that have to be looked at again, because it took too long. */
  async removeSome(ids: readonly string[]): Promise<readonly string[]> {
    const markedAt = Date.now();
    await this.#markAll(ids.filter((id) => !this.#stayed.has(id)));
    await this.#keepNeeded(ids);
    for (const [index, id] of ids.entries()) {
      this.#options.signal.throwIfAborted();
      if (this.#stayed.has(id)) continue;
      if (index > 0 && Date.now() - markedAt > MARKS_HOLD_MS) return ids.slice(index);
      await this.#remove(id);
    }
    await this.withdrawAll();
    return [];
  }

  async #markAll(ids: readonly string[]): Promise<void> {
    const limit = makeLimit(MARKS_AT_ONCE);
    await Promise.all(ids.map((id) => limit(() => this.#mark(id))));
  }

  async #mark(id: string): Promise<void> {
    if (this.#stayed.has(id)) return;
    const { signal } = this.#options;
    this.#marked.add(id);
    try {
      await putRemovalMark(this.#destination, this.#keyOf(id), { now: new Date(), signal });
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof OperationalError)) throw error;
      // Where not even a mark has room, removing is what makes room.
      if (error.code !== "full") this.#keep(id, { reason: error.message, isFailure: true });
    }
  }

  /** Looks, once the marks are there, who came to need these meanwhile. */
  async #keepNeeded(ids: readonly string[]): Promise<void> {
    const { home, prefix, signal } = this.#options;
    const wanted = new Set(ids);
    for (const { ids: read, purpose, pid, prefix: place } of await findReads(home)) {
      const reason = `process ${pid} reads it (${purpose})`;
      if (place === prefix) for (const id of read) if (wanted.has(id)) this.#keep(id, { reason, isFailure: false });
    }
    try {
      for (const id of await this.#repository.ids({ signal })) {
        if (this.#referencesOf.has(id)) continue;
        const needed = (await this.#neededOf(id)) ?? ids;
        for (const one of needed) if (wanted.has(one)) this.#keep(one, { reason: `${id} needs it`, isFailure: false });
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof OperationalError)) throw error;
      for (const id of ids) this.#keep(id, { reason: error.message, isFailure: true });
    }
  }

  /** What a snapshot needs that was not there before; undefined where nobody can tell. */
  async #neededOf(id: string): Promise<readonly string[] | undefined> {
    const { prefix, signal } = this.#options;
    const destination = this.#destination;
    try {
      const isEncrypted =
        (await destination.stat(`${prefix}/${id}/${ENCRYPTED_MANIFEST_NAME}`, { signal })) !== undefined;
      const parts = await readParts({ destination, prefix, id, isEncrypted, signal });
      return parts.references?.map((needed) => needed.id);
    } catch (error) {
      if (!(error instanceof OperationalError) || error.kind !== "archive") throw error;
      // Gone again, or one that nobody can read: a full refers to nothing.
      if (error.code === "not-found") return [];
      return parseSnapshotId(id)?.kind === "full" && error.code !== "future-version" ? [] : undefined;
    }
  }

  #keep(id: string, stay: Stay): void {
    if (this.#stayed.has(id)) return;
    this.#stayed.set(id, stay);
    for (const needed of this.#referencesOf.get(id) ?? []) this.#keep(needed, { ...stay, reason: `${id} needs it` });
  }

  async #remove(id: string): Promise<void> {
    const { prefix, state, signal } = this.#options;
    // Forgotten first: killed behind the manifest, the next prune must not miss a snapshot that was to go.
    state.forgetStored(prefix, this.#destination.name, id);
    try {
      this.#left.push(...(await this.#repository.remove(id, { signal })).map(({ message }) => message));
      this.#marked.delete(id);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof OperationalError)) throw error;
      if (this.#known.has(id)) state.addStored(prefix, this.#destination.name, id);
      this.#keep(id, { reason: error.message, isFailure: true });
    }
  }

  /** Takes away the marks of snapshots that stay, also when it was interrupted. One that is left goes with the garbage. */
  async withdrawAll(): Promise<void> {
    const limit = makeLimit(MARKS_AT_ONCE);
    const signal = AbortSignal.timeout(CLEAN_UP_MS);
    await Promise.all(
      [...this.#marked].map((id) =>
        limit(() => this.#destination.remove(this.#keyOf(id), { signal }).catch(() => undefined)),
      ),
    );
    this.#marked.clear();
  }

  #keyOf(id: string): string {
    return `${this.#options.prefix}/${id}/${this.#markName}`;
  }
}
