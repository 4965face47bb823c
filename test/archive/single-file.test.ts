import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openLocalFileSink } from "../../src/archive/file-sink.ts";
import { SingleFileDestination } from "../../src/archive/single-file-destination.ts";
import { openTarFileDestination } from "../../src/archive/tar-file-destination.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import { createFolder, never, openSampleWriter, PREFIX, TAKEN_AT, writeSample } from "../snapshot/sample-snapshot.ts";

const openSingle = async (path: string) =>
  new SingleFileDestination({
    sink: await openLocalFileSink(path),
    prefix: PREFIX,
    lastName: "manifest.json",
    modifiedAt: TAKEN_AT,
  });

test("writes a snapshot as one tar file that verifies like any other", async () => {
  await using folder = await createFolder();
  const path = join(folder.path, "shop.tar");
  {
    await using single = await openSingle(path);
    await writeSample({ destinations: [single], spoolFolder: folder.spool, volumeBytes: 16 * 1024 });
  }

  await using file = await openTarFileDestination({ path, prefix: PREFIX, signal: never });
  const result = await verifySnapshot({ destinations: [file], prefix: PREFIX, signal: never, report: () => {} });

  expect(result.snapshots).toMatchObject([{ ok: true, chunks: 8, problems: [] }]);
  expect((await readdir(folder.path)).filter((name) => name.includes("in-progress"))).toEqual([]);
});

test("leaves no file behind when the snapshot is not committed", async () => {
  await using folder = await createFolder();
  const path = join(folder.path, "shop.tar");
  {
    await using single = await openSingle(path);
    await using writer = await openSampleWriter({
      destinations: [single],
      spoolFolder: folder.spool,
      volumeBytes: 1024,
    });
    await writer.addChunk("one", Buffer.from("a\n"), 1);
    await writer.addChunk("two", Buffer.from("b\n"), 1);
  }

  expect((await readdir(folder.path)).sort()).toEqual(["spool", "store"]);
});

test("refuses to replace a file", async () => {
  await using folder = await createFolder();
  const path = join(folder.path, "shop.tar");
  await writeFile(path, "precious");

  await expect(openSingle(path)).rejects.toMatchObject({ code: "exists" });

  expect(await readFile(path, "utf8")).toBe("precious");
});

test("refuses a file that is cut short, goes on behind its end or has a damaged header", async () => {
  await using folder = await createFolder();
  const path = join(folder.path, "shop.tar");
  {
    await using single = await openSingle(path);
    await writeSample({ destinations: [single], spoolFolder: folder.spool });
  }
  const good = await readFile(path);
  const flipped = Buffer.from(good);
  flipped[3] = (flipped[3] ?? 0) ^ 1;

  for (const bad of [
    good.subarray(0, good.length - 512),
    good.subarray(0, 5000),
    Buffer.concat([good, good]),
    flipped,
  ]) {
    await writeFile(path, bad);

    await expect(openTarFileDestination({ path, prefix: PREFIX, signal: never })).rejects.toMatchObject({
      kind: "archive",
    });
  }
});
