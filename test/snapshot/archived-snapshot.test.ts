import { afterAll, beforeAll, expect, test } from "vitest";
import type { Destination } from "../../src/destinations/destination.ts";
import { openS3Destination } from "../../src/destinations/s3-destination.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { type GlacierFake, startGlacierFake } from "../support/glacier-fake.ts";
import { collect, createFolder, ID, never, PREFIX, sampleRows, writeSample } from "./sample-snapshot.ts";

let fake: GlacierFake;
beforeAll(async () => {
  fake = await startGlacierFake();
});
afterAll(() => fake?.close());

function openVault(prefix: string): Promise<Destination> {
  return openS3Destination(
    {
      type: "s3",
      bucket: "vault",
      prefix,
      endpoint: fake.endpoint,
      pathStyle: true,
      accessKeyId: "AK",
      secretAccessKey: "SK",
      storageClass: "DEEP_ARCHIVE",
    },
    { signal: never },
  );
}

test("a snapshot in an archive class is listed, marked and shown at once: only its volumes are archived", async () => {
  await using folder = await createFolder();
  await using vault = await openVault("hot");
  await writeSample({ destinations: [vault], spoolFolder: folder.spool, volumeBytes: 16 * 1024 });
  const repository = openRepository(vault, PREFIX);

  await repository.mark(ID, { verifiedAt: "2026-11-22T00:00:00.000Z" }, { signal: never });

  const list = await repository.list({ signal: never });
  expect(list.damaged).toEqual([]);
  expect(list.snapshots).toMatchObject([{ id: ID, verifiedAt: "2026-11-22T00:00:00.000Z" }]);
  const classes = new Map<string, string | undefined>();
  for await (const { key, storageClass } of vault.list("", { signal: never })) {
    classes.set(key.slice(`${PREFIX}/${ID}/`.length), storageClass);
  }
  expect(Object.fromEntries(classes)).toEqual({
    "manifest.json": "STANDARD",
    "verified.json": "STANDARD",
    "volume-0001.tar": "DEEP_ARCHIVE",
    "volume-0002.tar": "DEEP_ARCHIVE",
  });
});

test("its rows are refused as archived until they are thawed, or come from another destination", async () => {
  await using folder = await createFolder();
  await using vault = await openVault("cold");
  const destinations = [vault, folder.destination];
  const manifest = await writeSample({ destinations, spoolFolder: folder.spool });
  const chunks = manifest.tables[0]?.segments[0]?.chunks ?? [];
  const read = async (...from: Destination[]) => {
    await using reader = openSnapshotReader({ destinations: from, prefix: PREFIX, manifest, signal: never });
    return await collect(reader.chunks(chunks, { signal: never }));
  };
  const rows = Buffer.concat([sampleRows(1, 1, 1).raw, sampleRows(1, 1, 2).raw]);

  await expect(read(vault)).rejects.toMatchObject({ kind: "destination", code: "archived" });
  expect((await read(vault, folder.destination)).equals(rows)).toBe(true);

  for (const { name } of manifest.volumes) await vault.thaw?.(`${PREFIX}/${ID}/${name}`, { days: 1, signal: never });
  await expect(read(vault)).rejects.toMatchObject({ code: "archived" });
  fake.passHours(12);
  expect((await read(vault)).equals(rows)).toBe(true);
});
