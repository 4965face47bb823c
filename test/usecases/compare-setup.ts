import { type CompareSide, openLiveSide, openSnapshotSide } from "../../src/usecases/compare-sides.ts";
import { type CompareOptions, type CompareResult, compareSites } from "../../src/usecases/compare-sites.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase } from "../support/postgres.ts";
import type { PostgresMajor } from "../support/postgres-server.ts";
import { snapshotOf } from "../support/restoring.ts";

export const signal = new AbortController().signal;

/** Opens a database as one side. */
export function liveSide(url: string): Promise<CompareSide> {
  const choose = () => "rows" as const;
  return openLiveSide(connectionOfUrl(url), { parallel: 2, choose, stallTimeoutMs: 60_000, signal });
}

/** Backs a database up and opens the snapshot as one side; disposal deletes it. */
export async function snapshotSide(url: string): Promise<CompareSide> {
  const snapshot = await snapshotOf(url);
  const side = openSnapshotSide(snapshot.reader);
  return {
    ...side,
    async [Symbol.asyncDispose]() {
      await side[Symbol.asyncDispose]();
      await snapshot[Symbol.asyncDispose]();
    },
  };
}

/** Compares two sides and lists differing rows. */
export function compareOpen(
  left: CompareSide,
  right: CompareSide,
  options: Partial<CompareOptions> = {},
): Promise<CompareResult> {
  const report = () => undefined;
  return compareSites({ left, right, countOnly: false, rows: true, parallel: 2, signal, report, ...options });
}

export type Pairing = "live with live" | "live with snapshot" | "snapshot with snapshot";

export interface Pair {
  readonly left: PostgresMajor;
  readonly right: PostgresMajor;
  readonly pairing: Pairing;
}

/** Two databases that are emptied and compared again and again: making them anew takes longer than comparing them. */
export interface ComparedPair extends AsyncDisposable {
  compare(
    sql: { readonly both?: string; readonly left?: string; readonly right?: string },
    options?: Partial<CompareOptions>,
  ): Promise<CompareResult>;
}

const EMPTY =
  "select lo_unlink(oid) from pg_largeobject_metadata; drop schema public cascade; create schema public; set search_path = public";

export async function openPair({ left, right, pairing }: Pair): Promise<ComparedPair> {
  await using stack = new AsyncDisposableStack();
  const one = stack.use(await createDatabase(left));
  const other = stack.use(await createDatabase(right));
  const kept = stack.move();
  return {
    async compare(sql, options) {
      const { both = "select", left: leftSql = "select", right: rightSql = "select" } = sql;
      await Promise.all([one.query(`${EMPTY}; ${both}; ${leftSql}`), other.query(`${EMPTY}; ${both}; ${rightSql}`)]);
      await using here = await (pairing === "snapshot with snapshot" ? snapshotSide(one.url) : liveSide(one.url));
      await using there = await (pairing === "live with live" ? liveSide(other.url) : snapshotSide(other.url));
      return await compareOpen(here, there, options);
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** What differs, in short: `kind key [columns] times`. */
export function differencesOf(result: CompareResult): readonly string[] {
  return result.tables.flatMap(({ name, differences = [] }) =>
    differences.map(({ key, kind, columns, count = 1 }) =>
      [name, kind, ...Object.values(key).map(String), ...(columns ?? []), ...(count === 1 ? [] : [`x${count}`])].join(
        " ",
      ),
    ),
  );
}
