import { cp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { Decrypter } from "age-encryption";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { generateKeyPair, keyIdOf, type Lock } from "../../src/archive/age-keys.ts";
import { locateSnapshot } from "../../src/snapshot/locate-snapshot.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { createKeyRing, type KeyRing } from "../../src/snapshot/snapshot-key.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import {
  collect,
  createFolder,
  ID,
  never,
  PREFIX,
  sampleRows,
  type TestFolder,
  writeSample,
} from "./sample-snapshot.ts";

const OTHER_ID = "20261122T020000Z-full";
const pair = await generateKeyPair();
const keys = createKeyRing({ identities: [pair.identity] });
const report = () => {};

interface Sample extends TestFolder {
  /** Folder of the snapshot's objects. */
  readonly objects: string;
  readonly other: string;
}

async function createSample(
  lock: Lock = { recipients: [pair.recipient] },
  ids: readonly string[] = [ID],
): Promise<Sample> {
  const folder = await createFolder();
  for (const id of ids) {
    await writeSample({
      destinations: [folder.destination],
      spoolFolder: folder.spool,
      volumeBytes: 16 * 1024,
      lock,
      id,
    });
  }
  const store = join(folder.path, "store", PREFIX);
  return { ...folder, objects: join(store, ID), other: join(store, OTHER_ID) };
}

function open(folder: TestFolder, keyRing: KeyRing | undefined = keys, id = ID) {
  return openRepository(folder.destination, PREFIX, { keys: keyRing }).open(id, { signal: never });
}

async function codeOf(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(
    () => "none",
    (error: { readonly kind?: string; readonly code?: string }) => `${error.kind} ${error.code}`,
  );
}

/** Reads every row of the first table by the usual way: find, open, read. */
async function readOrders(folder: TestFolder, keyRing: KeyRing): Promise<string> {
  const where = { destinations: [folder.destination], prefix: PREFIX, signal: never };
  const located = await locateSnapshot({ ...where, keys: keyRing, choice: { name: ID } });
  await using reader = openSnapshotReader({ ...where, ...located });
  const refs = located.manifest.tables[0]?.segments.flatMap(({ chunks }) => chunks) ?? [];
  return String(await collect(reader.chunks(refs, { signal: never })));
}

const ORDERS = [1, 2].flatMap((segment) => [1, 2].map((chunk) => sampleRows(1, segment, chunk).raw)).join("");

describe("an encrypted snapshot", () => {
  test("is read with nothing but the age library, zstd and the offsets of its manifest", async () => {
    await using folder = await createSample();
    const yours = new Decrypter();
    yours.addIdentity(pair.identity);
    const identity = /^AGE-SECRET-KEY-1.*$/m.exec(
      await yours.decrypt(await readFile(join(folder.objects, "key.age")), "text"),
    )?.[0];
    const own = new Decrypter();
    own.addIdentity(identity ?? "");

    const text = await own.decrypt(await readFile(join(folder.objects, "manifest.json.age")), "text");

    const manifest = JSON.parse(text) as Manifest;
    const rows = [];
    for (const chunk of manifest.tables[0]?.segments.flatMap(({ chunks }) => chunks) ?? []) {
      const volume = await readFile(join(folder.objects, manifest.volumes[chunk.volume]?.name ?? ""));
      rows.push(zstdDecompressSync(await own.decrypt(volume.subarray(chunk.offset, chunk.offset + chunk.size))));
    }
    expect(Buffer.concat(rows).toString()).toBe(ORDERS);
  });

  test("says nothing in clear of tables, rows, definitions and files", async () => {
    await using folder = await createSample();

    const names = await readdir(folder.objects);
    const everything = Buffer.concat(await Promise.all(names.map((name) => readFile(join(folder.objects, name)))));

    expect(names.toSorted()).toEqual([
      "envelope.json",
      "key.age",
      "manifest.json.age",
      ...Array.from({ length: names.length - 3 }, (_, index) => `volume-000${index + 1}.tar`),
    ]);
    expect(everything.includes("0001-table/0001-000001.tsv.zst.age")).toBe(true);
    for (const word of [
      "orders",
      "odd",
      "CREATE TABLE",
      "nginx",
      "setval",
      "AGE-SECRET-KEY",
      "7400000000000000001",
      pair.recipient,
    ]) {
      expect(everything.includes(word), word).toBe(false);
    }
  });

  test("opens with the key of each recipient alone", async () => {
    const second = await generateKeyPair();
    await using folder = await createSample({ recipients: [pair.recipient, second.recipient] });

    const read = [
      await readOrders(folder, keys),
      await readOrders(folder, createKeyRing({ identities: [second.identity] })),
    ];

    expect(read).toEqual([ORDERS, ORDERS]);
  });

  test("opens with its passphrase, and not with another one", async () => {
    const passphrase = "correct horse battery";
    await using folder = await createSample({ passphrase });

    expect(await readOrders(folder, createKeyRing({ identities: [], passphrases: [passphrase] }))).toBe(ORDERS);
    expect(await codeOf(open(folder, createKeyRing({ identities: [], passphrases: ["wrong"] })))).toBe(
      "archive wrong-key",
    );
  });

  test("says that a key is needed, or wrong, and whose it must be", async () => {
    await using folder = await createSample();
    const stranger = createKeyRing({ identities: [(await generateKeyPair()).identity] });

    await expect(openRepository(folder.destination, PREFIX).open(ID, { signal: never })).rejects.toMatchObject({
      exitCode: 7,
      code: "key-needed",
      hint: expect.stringContaining(keyIdOf(pair.recipient)) as unknown,
    });
    await expect(open(folder, stranger)).rejects.toMatchObject({
      exitCode: 7,
      code: "wrong-key",
      hint: expect.stringContaining(keyIdOf(pair.recipient)) as unknown,
    });
  });

  test("is listed as locked without its key, and is neither damaged nor garbage", async () => {
    await using folder = await createSample();
    const repository = openRepository(folder.destination, PREFIX);

    const list = await repository.list({ signal: never });
    const garbage = await repository.findGarbage({ now: new Date("2100-01-01"), leaseMs: 0, signal: never });

    expect(list).toMatchObject({ snapshots: [], damaged: [], locked: [{ id: ID, error: { code: "key-needed" } }] });
    expect(list.locked[0]?.storedBytes).toBeGreaterThan(16 * 1024);
    expect(garbage).toEqual([]);
  });

  test("is removed whole, without its key", async () => {
    await using folder = await createSample();

    await openRepository(folder.destination, PREFIX).remove(ID, { signal: never });

    const left = [];
    for await (const { key } of folder.destination.list("", { signal: never })) left.push(key);
    expect(left).toEqual([]);
  });
});

describe("verify", () => {
  const verify = (folder: TestFolder, keyRing: KeyRing | undefined) =>
    verifySnapshot({ destinations: [folder.destination], prefix: PREFIX, keys: keyRing, signal: never, report });

  test("finds an encrypted snapshot good, down to its chunks", async () => {
    await using folder = await createSample();

    const result = await verify(folder, keys);

    expect(result.snapshots).toMatchObject([{ ok: true, chunks: 8, problems: [] }]);
    expect(result.snapshots[0]).not.toHaveProperty("locked");
  });

  test("finds one flipped bit in any file with the key, and never calls the key wrong", async () => {
    await using folder = await createSample();
    const names = await readdir(folder.objects);

    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names), fc.nat(), fc.nat(7), async (name, at, bit) => {
        const path = join(folder.objects, name);
        const good = await readFile(path);
        const bad = Buffer.from(good);
        bad[at % bad.length] = (bad[at % bad.length] ?? 0) ^ (1 << bit);
        await writeFile(path, bad);
        try {
          const result = await verify(folder, keys);
          expect(result.ok, `${name} at ${at % bad.length}`).toBe(false);
          expect(["none", "archive damaged"], `${name} at ${at % bad.length}`).toContain(await codeOf(open(folder)));
        } finally {
          await writeFile(path, good);
        }
      }),
      { numRuns: 80 },
    );
  });

  test("compares the volumes with their hashes when no key is given, and records no proof", async () => {
    await using folder = await createSample();

    const good = await verify(folder, undefined);
    const path = join(folder.objects, "volume-0001.tar");
    const bytes = await readFile(path);
    bytes[5000] = (bytes[5000] ?? 0) ^ 1;
    await writeFile(path, bytes);
    const bad = await verify(folder, undefined);
    const marked = await openRepository(folder.destination, PREFIX).list({ signal: never });
    bytes[5000] = (bytes[5000] ?? 0) ^ 1;
    await writeFile(path, bytes);
    await verify(folder, undefined);

    expect(good.snapshots).toMatchObject([{ ok: true, locked: true, chunks: 0 }]);
    expect(bad.snapshots).toMatchObject([{ ok: false, locked: true, problems: [{ volume: "volume-0001.tar" }] }]);
    expect(marked.locked).toMatchObject([{ isIncomplete: true }]);
    expect(marked.locked[0]?.verifiedAt).toBeUndefined();
    expect(await readdir(folder.objects)).not.toContain("verified.json");
  });

  test("with the wrong key does not pass", async () => {
    await using folder = await createSample();

    const result = await verify(folder, createKeyRing({ identities: [(await generateKeyPair()).identity] }));

    expect(result.snapshots).toMatchObject([
      { ok: false, problems: [{ problem: expect.stringContaining("wrong") as unknown }] },
    ]);
  });
});

describe("somebody who may write to the destination, and has no key,", () => {
  const both = [ID, OTHER_ID] as const;
  const lock = { recipients: [pair.recipient] };

  test.each([
    ["key.age", "damaged"],
    ["manifest.json.age", "damaged"],
  ])("cannot put the %s of another snapshot in place", async (name, code) => {
    await using folder = await createSample(lock, both);
    await cp(join(folder.other, name), join(folder.objects, name));

    expect(await codeOf(open(folder))).toBe(`archive ${code}`);
  });

  test("cannot do so by changing the envelope too", async () => {
    await using folder = await createSample(lock, both);
    for (const name of ["key.age", "envelope.json"]) await cp(join(folder.other, name), join(folder.objects, name));

    expect(await codeOf(open(folder))).toBe("archive damaged");
  });

  test("cannot pass a snapshot off as another one", async () => {
    await using folder = await createSample(lock, both);
    await rm(folder.objects, { recursive: true });
    await rename(folder.other, folder.objects);

    expect(await codeOf(open(folder))).toBe("archive invalid-manifest");
  });

  test("cannot replace the manifest by a plain one", async () => {
    await using folder = await createSample();
    await using plain = await createFolder();
    await writeSample({ destinations: [plain.destination], spoolFolder: plain.spool });
    const forged = join(plain.path, "store", PREFIX, ID, "manifest.json");
    await cp(forged, join(folder.objects, "manifest.json"));

    const { manifest, decrypt } = await open(folder);

    expect(manifest.encryption).toEqual({ format: "age" });
    expect(decrypt).toBeDefined();
  });

  test("cannot swap chunks, or take one from another snapshot", async () => {
    await using folder = await createSample(lock, both);
    const { manifest } = await open(folder);
    const [first, second] = manifest.tables[0]?.segments[0]?.chunks ?? [];
    if (!first || !second) throw new Error("the sample has no such chunks");
    const path = join(folder.objects, manifest.volumes[first.volume]?.name ?? "");
    const good = await readFile(path);
    const foreign = await readFile(join(folder.other, manifest.volumes[first.volume]?.name ?? ""));
    const size = Math.min(first.size, second.size);
    const swapped = Buffer.from(good);
    good.copy(swapped, first.offset, second.offset, second.offset + size);
    const spliced = Buffer.from(good);
    foreign.copy(spliced, first.offset, first.offset, first.offset + first.size);

    const codes = [];
    for (const bytes of [swapped, spliced]) {
      await writeFile(path, bytes);
      codes.push(await codeOf(readOrders(folder, keys)));
    }

    expect(codes).toEqual(["archive hash-mismatch", "archive hash-mismatch"]);
  });
});
