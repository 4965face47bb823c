import { describe, expect, test } from "vitest";
import { bytesOf } from "../../src/snapshot/object-bytes.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { sealJson } from "../../src/snapshot/sealed-json.ts";
import { altered, type Fault, FaultDestination, scripted } from "../support/fault-destination.ts";
import { createFolder, ID, never, PREFIX, type TestFolder, writeSample } from "./sample-snapshot.ts";

const MARKS = `${PREFIX}/${ID}/verified.json`;
const undoneAt = "2026-11-22T00:00:00.000Z";
const verifiedAt = "2026-11-23T00:00:00.000Z";
const options = { signal: never };
const flip: Fault = { kind: "flip" };

async function sample() {
  const folder = await createFolder();
  await writeSample({ destinations: [folder.destination], spoolFolder: folder.spool });
  await openRepository(folder.destination, PREFIX).mark(ID, { undoneAt }, options);
  return folder;
}

function misreading(folder: TestFolder, key: RegExp, fault: Fault, times: number) {
  const faults = new FaultDestination(folder.destination, {
    schedule: scripted({ operation: "get", key, fault, times }),
  });
  return openRepository(faults, PREFIX);
}

const truth = async ({ destination }: TestFolder) =>
  (await openRepository(destination, PREFIX).list(options)).snapshots[0];

async function replaceMarks({ destination }: TestFolder, bytes: Buffer): Promise<void> {
  const open = async function* () {
    yield bytes;
  };
  await destination.put(MARKS, open, { size: bytes.length, signal: never });
}

describe("marks", () => {
  test("are kept when they are misread once while others are added", async () => {
    await using folder = await sample();

    await misreading(folder, /verified\.json$/, flip, 1).mark(ID, { verifiedAt }, options);

    expect(await truth(folder)).toMatchObject({ undoneAt, verifiedAt });
  });

  test("are not replaced while they are misread in another way each time", async () => {
    await using folder = await sample();

    const marking = misreading(folder, /verified\.json$/, flip, 99).mark(ID, { verifiedAt }, options);

    await expect(marking).rejects.toMatchObject({ kind: "archive", code: "damaged" });
    expect(await truth(folder)).toMatchObject({ undoneAt });
  });

  test("are not replaced when they are whole and of a form that this version does not know", async () => {
    await using folder = await sample();
    await replaceMarks(folder, sealJson({ verifiedAt: 7 }));

    const marking = openRepository(folder.destination, PREFIX).mark(ID, { verifiedAt }, options);

    await expect(marking).rejects.toMatchObject({ code: "damaged" });
  });

  test("are replaced when they are proven to be damaged", async () => {
    await using folder = await sample();
    await replaceMarks(folder, Buffer.from('{"undoneAt":'));

    await openRepository(folder.destination, PREFIX).mark(ID, { verifiedAt }, options);

    expect(await truth(folder)).toMatchObject({ verifiedAt });
  });

  test("are in a list even when they are misread once", async () => {
    await using folder = await sample();

    const { snapshots } = await misreading(folder, /verified\.json$/, flip, 1).list(options);

    expect(snapshots).toMatchObject([{ id: ID, undoneAt }]);
  });
});

describe("a manifest", () => {
  test.each<Fault>([flip, { kind: "short" }])(
    "that is misread once (%j) is listed and not called damaged",
    async (fault) => {
      await using folder = await sample();

      const list = await misreading(folder, /manifest\.json$/, fault, 1).list(options);

      expect(list.damaged).toEqual([]);
      expect(list.snapshots).toMatchObject([{ id: ID }]);
    },
  );

  test("that is misread twice is called damaged", async () => {
    await using folder = await sample();

    const list = await misreading(folder, /manifest\.json$/, flip, 2).list(options);

    expect(list.damaged).toMatchObject([{ id: ID }]);
  });
});

describe("what is read in one go", () => {
  test.each([
    ["misread", Buffer.from("{")],
    ["not there", undefined],
  ])("is read one by one when it is %s", async (_, bytes) => {
    await using folder = await sample();
    const asked: string[] = [];
    const there = altered(folder.destination, {
      getSmall: async (keys) => {
        asked.push(...keys);
        return keys.map(() => bytes);
      },
    });

    const { snapshots, damaged } = await openRepository(there, PREFIX).list(options);

    expect(asked.sort()).toEqual([`${PREFIX}/${ID}/manifest.json`, MARKS]);
    expect(damaged).toEqual([]);
    expect(snapshots).toEqual([await truth(folder)]);
    expect(snapshots).toMatchObject([{ id: ID, undoneAt }]);
  });

  test("is damaged when it is so when it is read again", async () => {
    await using folder = await sample();
    const key = `${PREFIX}/${ID}/manifest.json`;
    const bytes = Buffer.from("{}");
    await folder.destination.put(key, () => bytesOf(bytes), { size: bytes.length, signal: never });

    const { snapshots, damaged } = await openRepository(folder.destination, PREFIX).list(options);

    expect(snapshots).toEqual([]);
    expect(damaged).toMatchObject([{ id: ID, error: { code: "invalid-manifest" } }]);
  });
});
