import { OperationalError } from "../base/errors.ts";
import type { ChangeTracker, TableMark } from "../drivers/change-tracker.ts";
import type { Source, SourceTable } from "../drivers/driver.ts";
import type { RowForm } from "../drivers/row-form.ts";
import { makeRowHash, type RowHash } from "../drivers/row-hash.ts";
import { canBeHashed, hashFormOf, isSameDatabase } from "../plan/check-hashable.ts";
import { CELL_PAGES } from "../plan/plan-delta.ts";
import { ownEncodingOf } from "../snapshot/own-encoding.ts";
import type { BaseTable } from "./base-table.ts";
import { findChangesByHash } from "./find-by-hash.ts";
import { BATCH_BYTES, type StoreTablesOptions } from "./store-rows.ts";
import type { FindChanges } from "./store-span.ts";

/** `always`: wherever rows may still lie where the base has them. `on-slow-links`: and where that takes less time than reading them. */
export type ServerHashUse = "always" | "on-slow-links";

export interface HashedTable {
  readonly table: SourceTable;
  readonly mark: TableMark | string | undefined;
  readonly base: BaseTable | undefined;
}

/** Compares tables by hashes that the server computes. */
export interface ServerHash {
  /** Gives what finds the changes of a table; undefined: it must be read. */
  finderOf(table: HashedTable): FindChanges | undefined;
}

/** The server could not hash a table. */
export const HASH_FAILED = "hash-failed";

/** Smaller tables are read before it is known how fast the link is. */
const LEAST_BYTES = 4 * CELL_PAGES * 8192;
/** How much longer than hashing a cell the transfer of its rows must take. */
const SLOW_FACTOR = 2;
/** What the answer of a busy server or a far network takes longer now and then. */
const SLACK_MS = 200;

/** Prepares comparing these tables; undefined where that cannot be, or takes longer than reading them. */
export async function openServerHash(
  options: Pick<StoreTablesOptions, "source" | "base" | "serverHash" | "signal">,
  tables: readonly HashedTable[],
): Promise<ServerHash | undefined> {
  const { source, base, serverHash: use } = options;
  const { tracker } = source;
  if (!use || !base || !tracker || !isSameDatabase(base.reader.manifest.trust, tracker.token)) return undefined;
  const hashable = tables.filter(({ base: known, table, mark }) =>
    known ? canBeHashed({ stored: known.stored, table, mark }) : false,
  );
  const bytes = hashable.reduce((sum, { table }) => sum + table.bytes, 0);
  if (hashable.length === 0 || (use === "on-slow-links" && bytes < LEAST_BYTES)) return undefined;
  const isRefusal = (error: unknown): error is OperationalError =>
    error instanceof OperationalError && error.kind === "database" && !options.signal.aborted;
  const hash = await chooseHash(tracker, ownEncodingOf(source)).catch((error: unknown) => {
    // A login may lack the right to use a function: then the rows are read.
    if (isRefusal(error)) return undefined;
    throw error;
  });
  if (!hash) return undefined;
  const formOf = ({ stored }: BaseTable, table: SourceTable) => hashFormOf({ stored, table }, hash);
  const [largest] = hashable.toSorted((left, right) => right.table.bytes - left.table.bytes);
  if (use === "on-slow-links" && largest?.base) {
    const form = formOf(largest.base, largest.table);
    if (!(await isSlow({ source, tracker, table: largest.table, form, signal: options.signal }))) return undefined;
  }
  const chosen = new Set(hashable.map(({ table }) => table));
  return {
    finderOf({ table, base: known }) {
      if (!known || !chosen.has(table)) return undefined;
      const form = formOf(known, table);
      return async (context, segments) => {
        try {
          return await findChangesByHash(context, segments, form);
        } catch (cause) {
          if (!isRefusal(cause) || cause.code === "value-too-large") throw cause;
          throw new OperationalError(`the server could not hash it: ${cause.message}`, {
            kind: "database",
            code: HASH_FAILED,
            cause,
          });
        }
      };
    },
  };
}

/** A hash of its own for each snapshot, so that nobody can prepare rows whose sums are equal. */
async function chooseHash(tracker: ChangeTracker, encoding: string | undefined): Promise<RowHash> {
  const hash = makeRowHash(encoding);
  return (await tracker.hashes.agreesOn(hash)) ? hash : { ...hash, method: "sha256" };
}

interface Measured {
  readonly source: Source;
  readonly tracker: ChangeTracker;
  readonly table: SourceTable;
  readonly form: RowForm;
  readonly signal: AbortSignal;
}

async function isSlow(measured: Measured): Promise<boolean> {
  try {
    return await isTransferSlower(measured);
  } catch (error) {
    // What cannot be written down as text is read in another way.
    if (error instanceof OperationalError && error.code === "value-too-large") return false;
    throw error;
  }
}

/** Measures both ways with one cell. The hash comes first, when the server may have to fetch the pages from its disk. */
async function isTransferSlower({ source, tracker, table, form, signal }: Measured): Promise<boolean> {
  const begun = performance.now();
  await tracker.hashes.sums(table, { form, units: [0], pages: CELL_PAGES });
  const hashed = performance.now();
  const most = SLOW_FACTOR * (hashed - begun) + SLACK_MS;
  const segment = { pages: { lo: 0, hi: CELL_PAGES }, estimatedBytes: 0 };
  for await (const _ of source.rows(table, segment, { batchBytes: BATCH_BYTES / 16, signal })) {
    if (performance.now() - hashed > most) return true;
  }
  return performance.now() - hashed > most;
}
