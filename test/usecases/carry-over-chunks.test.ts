import { readerWith } from "../../src/snapshot/snapshot-reader.ts";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { OperationalError } from "../../src/base/errors.ts";
import type { Destination } from "../../src/destinations/destination.ts";
import { openResilientDestination } from "../../src/destinations/open-resilient-destination.ts";
import type { EarlierSnapshot } from "../../src/plan/plan-carry-over.ts";
import type { ChunkRef, Manifest } from "../../src/snapshot/manifest.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { chunksOf } from "../../src/snapshot/parse-manifest.ts";
import { baseOf } from "../../src/usecases/reuse-chunks.ts";
import { type Chain, contentOf, methodsOf, openChain, truthOf } from "../support/increments.ts";
import { startGlacierFake } from "../support/glacier-fake.ts";
import { createDatabase } from "../support/postgres.ts";
import { untilAlone } from "../support/until-alone.ts";

const signal = new AbortController().signal;
const PREFIX = "shop/shop";
const SQL = `
  create table dead (id int primary key, v text);
  insert into dead select i, (select string_agg(md5(random()::text || i || k), '') from generate_series(1, 30) k)
    from generate_series(1, 300) i;
  create table alive (id int primary key, v text); insert into alive select i, md5(i::text) from generate_series(1, 500) i`;

/** Of all these it is said that only others keep them, and that they are large. */
function deadOnes(...manifests: readonly Manifest[]): ReadonlyMap<string, EarlierSnapshot> {
  return new Map(
    manifests.map(({ id, references = [] }) => [
      id,
      { references: references.map((one) => one.id), volumeBytes: 1e9, staysOnlyForOthers: true },
    ]),
  );
}

async function remove(destination: Destination, { id }: Manifest): Promise<void> {
  const keys = await Array.fromAsync(destination.list(`${PREFIX}/${id}/`, { signal }), ({ key }) => key);
  for (const key of keys) await destination.remove(key, { signal });
}

async function bytesOf(chain: Chain, manifest: Manifest, chunks: readonly ChunkRef[]): Promise<string> {
  await using reader = chain.readerOf(manifest);
  return Buffer.concat(await Array.fromAsync(reader.chunks(chunks, { signal }))).toString("latin1");
}

test("rows, large objects and files are carried over, and the old snapshot can be gone", {
  timeout: 60_000,
}, async () => {
  await using database = await createDatabase(18, `${SQL}; select lo_from_bytea(77, 'large object')`);
  await using chain = await openChain();
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "a.conf");
  await writeFile(file, "content of a file");
  await untilAlone(database);
  const full = await chain.next(database.url, { files: [file] });
  await database.query("update alive set v = 'new' where id = 5; delete from alive where id = 6");

  const manifest = await chain.next(database.url, { files: [file], earlier: deadOnes(full) });

  await remove(chain.destination, full);
  expect(manifest.references).toBeUndefined();
  expect(manifest.carriedOver?.from).toEqual([full.id]);
  expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
  expect(await bytesOf(chain, manifest, manifest.largeObjects.chunks)).toContain(
    Buffer.from("large object").toString("hex"),
  );
  expect(await bytesOf(chain, manifest, manifest.files[0]?.chunks ?? [])).toBe("content of a file");
  await database.query("update alive set v = 'newer' where id = 7");
  const next = await chain.next(database.url, { files: [file] });
  expect(methodsOf(next)).toEqual({ alive: "delta", dead: "unchanged" });
  expect(await contentOf(chain.readerOf(next))).toEqual(await truthOf(database.url));
});

test("the rows of a table that is carried over again and again lie in no more segments than ever", {
  timeout: 60_000,
}, async () => {
  await using database = await createDatabase(18, SQL);
  await using chain = await openChain();
  await untilAlone(database);
  let base = await chain.next(database.url);
  for (let round = 0; round < 9; round++) {
    await database.query(`update alive set v = 'r${round}' where id % 100 = ${round}`);

    const manifest = await chain.next(database.url, { earlier: deadOnes(base) });

    await remove(chain.destination, base);
    expect(manifest.references).toBeUndefined();
    expect(Math.max(...manifest.tables.map(({ segments }) => segments.length))).toBeLessThanOrEqual(9);
    expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
    base = manifest;
  }
});

test("what a destination does not give now stays where it is, with a warning", { timeout: 60_000 }, async () => {
  await using database = await createDatabase(18, SQL);
  await using chain = await openChain();
  await untilAlone(database);
  const full = await chain.next(database.url);
  const reader = chain.readerOf(full);
  const rows = new Set(full.tables.flatMap(({ segments }) => segments.flatMap(({ chunks }) => chunks)).map(placeOf));
  const warnings: string[] = [];

  const manifest = await chain.next(database.url, {
    base: baseOf(
      readerWith(reader, {
        manifest: full,
        async *chunks(refs, options) {
          for (const ref of refs) {
            if (rows.has(placeOf(ref))) throw new OperationalError("no answer", { kind: "destination", code: "busy" });
            yield* reader.chunks([ref], options);
          }
        },
      }),
    ),
    earlier: deadOnes(full),
    report: (event) => {
      if (event.type === "warning") warnings.push(event.message);
    },
  });

  expect(manifest.references?.map(({ id }) => id)).toEqual([full.id]);
  expect(warnings).toEqual([`${full.id} is not carried over: no answer`]);
  expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
});

const placeOf = ({ volume, offset }: ChunkRef) => `${volume}/${offset}`;

test("what lies in an archive stays there, and nothing fails", { timeout: 60_000 }, async () => {
  const fake = await startGlacierFake();
  await using stack = new AsyncDisposableStack();
  stack.defer(() => fake.close());
  await using vault = await openResilientDestination(
    {
      type: "s3",
      name: "vault",
      bucket: "vault",
      prefix: "carry",
      endpoint: fake.endpoint,
      pathStyle: true,
      accessKeyId: "AK",
      secretAccessKey: "SK",
      storageClass: "GLACIER",
    },
    { signal },
  );
  await using database = await createDatabase(18, SQL);
  await using chain = await openChain();
  await untilAlone(database);
  const full = await chain.next(database.url, { destinations: [vault] });
  const reader = openSnapshotReader({ destinations: [vault], prefix: PREFIX, manifest: full, signal });

  const manifest = await chain.next(database.url, {
    destinations: [vault],
    base: baseOf(reader),
    earlier: deadOnes(full),
  });

  expect(manifest.carriedOver).toBeUndefined();
  expect(manifest.references?.map(({ id }) => id)).toEqual([full.id]);
  expect([...chunksOf(manifest)].every(({ snapshot }) => snapshot === 0)).toBe(true);
});
