import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { generateKeyPair } from "../../src/archive/age-keys.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { createKeyRing } from "../../src/snapshot/snapshot-key.ts";
import { chooseBase } from "../../src/usecases/choose-base.ts";
import { openBaseKeeper } from "../../src/usecases/keep-base.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import { createFolder, ID, never, PREFIX, writeSample } from "../snapshot/sample-snapshot.ts";

const INCREMENTAL = "20261121T030000Z-incremental";
const TRUST: NonNullable<Manifest["trust"]> = {
  systemIdentifier: "7400000000000000001",
  databaseOid: "5",
  timeline: "00000001",
  startedAt: "1",
  major: 18,
  snapshot: "10:10:",
  xmin: "10",
  lsn: "1",
};

/** Two destinations; what is stored at both at once is the same snapshot. */
async function chooseFrom({ isEncrypted, isSame }: { readonly isEncrypted: boolean; readonly isSame: boolean }) {
  await using folder = await createFolder();
  const open = (name: string) =>
    openLocalDestination({ type: "local", name, path: join(folder.path, name) }, { signal: never });
  const destinations = [await open("near"), await open("far")];
  const pair = await generateKeyPair();
  const lock = isEncrypted ? { recipients: [pair.recipient] } : undefined;
  for (const [index, some] of (isSame ? [destinations] : destinations.map((one) => [one])).entries()) {
    // Other bytes of the same size.
    const name = `m${index}`;
    const manifest = {
      trust: TRUST,
      sequences: [{ schema: "public", name, lastValue: "1", isCalled: true, increment: "1" }],
    };
    await writeSample({
      destinations: some,
      spoolFolder: folder.spool,
      compression: { codec: "zstd", level: 2 },
      manifest,
      lock,
    });
  }
  return await chooseBase({
    destinations,
    prefix: PREFIX,
    lock,
    keys: isEncrypted ? createKeyRing({ identities: [pair.identity] }) : undefined,
    keeper: openBaseKeeper(join(folder.path, "bases")),
    cache: { get: async () => undefined, put: async () => undefined },
    signal: never,
  });
}

test.each([{ isEncrypted: false }, { isEncrypted: true }])(
  "nothing builds on a snapshot that another one bears the id of elsewhere (encrypted: $isEncrypted)",
  async ({ isEncrypted }) => {
    const same = await chooseFrom({ isEncrypted, isSame: true });
    const other = await chooseFrom({ isEncrypted, isSame: false });

    expect(same.base?.reader.manifest.id).toBe(ID);
    expect(other.base).toBeUndefined();
    expect(other.reason).toBe(`${ID} cannot be used: far has another snapshot with the id ${ID}`);
  },
);

test("nothing builds on a snapshot that verify found damaged until it is verified again and good", async () => {
  await using folder = await createFolder();
  const { destination } = folder;
  const sample = { destinations: [destination], spoolFolder: folder.spool, manifest: { trust: TRUST } };
  const base = await writeSample(sample);
  const manifest = { ...sample.manifest, kind: "incremental" as const };
  await writeSample({ ...sample, manifest, id: INCREMENTAL, base, adopts: () => true });
  const path = join(folder.path, "store", PREFIX, ID, base.volumes[0]?.name ?? "");
  const good = await readFile(path);
  const choose = () =>
    chooseBase({
      destinations: [destination],
      prefix: PREFIX,
      lock: undefined,
      keys: undefined,
      keeper: openBaseKeeper(join(folder.path, "bases")),
      signal: never,
    });
  // The newest one only: what it needs is another one's.
  const verify = (id: string) =>
    verifySnapshot({ destinations: [destination], prefix: PREFIX, id, signal: never, report: () => {} });

  await writeFile(
    path,
    good.map((byte) => byte ^ 1),
  );
  await verify(INCREMENTAL);
  const spoiled = await choose();
  await writeFile(path, good);
  await verify(ID);
  await verify(INCREMENTAL);
  const mended = await choose();

  expect(spoiled.base).toBeUndefined();
  expect(spoiled.reason).toBe(
    `${INCREMENTAL} cannot be used: ${INCREMENTAL} at ${destination.name} is damaged or lacks volumes`,
  );
  expect(mended.base?.reader.manifest.id).toBe(INCREMENTAL);
});
