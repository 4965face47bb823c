import { describe, expect, test } from "vitest";
import { OperationalError } from "../../src/base/errors.ts";
import { SPAN_PAGES } from "../../src/plan/plan-delta.ts";
import { readerWith, type SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { BaseTable } from "../../src/usecases/base-table.ts";
import { baseOf, type ChunkSink } from "../../src/usecases/reuse-chunks.ts";
import { BASE_UNREADABLE, storeSpan } from "../../src/usecases/store-span.ts";
import { openChain } from "../support/increments.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { openTracked } from "../support/tracked-source.ts";
import { untilAlone } from "../support/until-alone.ts";

const signal = new AbortController().signal;
const TABLE = "create table t (id int); insert into t select generate_series(1, 1000)";

/** Nothing is stored of a span that did not change. */
const NO_SINK = {
  addChunk: async () => {
    throw new Error("a chunk was stored");
  },
} as unknown as ChunkSink;

/** A database and its full. */
async function openFull(major: 15 | 18) {
  await using stack = new AsyncDisposableStack();
  const database = stack.use(await createDatabase(major, TABLE));
  await untilAlone(database);
  const chain = stack.use(await openChain());
  const reader = stack.use(chain.readerOf(await chain.next(database.url)));
  const owned = stack.move();
  return { url: database.url, reader, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Compares the only span of a table, as if the one before had changes: its page maps are read while the server looks. */
async function compare(url: string, reader: SnapshotReader) {
  await using source = await openTracked(url);
  const [table] = source.tables;
  const [stored] = reader.manifest.tables;
  const { tracker } = source;
  if (!table || !stored || !tracker) throw new Error("no table is tracked");
  const known = new BaseTable(stored, reader, signal);
  known.isChanging = true;
  const span = { lo: 0, hi: SPAN_PAGES };
  const context = { source, sink: NO_SINK, base: baseOf(reader), signal, report: () => undefined };
  const { isUnchanged } = await storeSpan({ ...context, table, group: 1, label: "public.t", known, span, tracker });
  return { isUnchanged, isChanging: known.isChanging };
}

describe.each(postgresMajors)("a span without changes behind one that had some (PostgreSQL %i)", (major) => {
  test("has the page maps of the next one left alone until they are needed", async () => {
    await using shop = await openFull(major);
    const { url, reader } = shop;

    const compared = await compare(url, reader);

    expect(compared).toEqual({ isUnchanged: true, isChanging: false });
  });

  test("is not taken from a base whose page maps turned out to be unreadable", async () => {
    await using shop = await openFull(major);
    const { url, reader } = shop;
    const damaged = readerWith(reader, {
      async *chunks(_, options) {
        yield* reader.chunks([], options);
        throw new OperationalError("cannot read a volume: it is damaged", { kind: "archive", code: "damaged" });
      },
      [Symbol.asyncDispose]: async () => undefined,
    });

    const comparing = compare(url, damaged);

    await expect(comparing).rejects.toMatchObject({ code: BASE_UNREADABLE });
  });
});
