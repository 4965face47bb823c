import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { bytesOf } from "../../src/snapshot/object-bytes.ts";
import { compareSnapshotIds, makeSnapshotId, parseSnapshotId } from "../../src/snapshot/snapshot-id.ts";

const { signal } = new AbortController();
const takenAt = new Date("2026-11-21T02:00:00.700Z");

test("of two snapshots of one second the later one comes behind the earlier one, whatever their kinds", async () => {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  try {
    await using first = await openLocalDestination({ type: "local", path: join(folder, "first") }, { signal });
    await using second = await openLocalDestination({ type: "local", path: join(folder, "second") }, { signal });
    const options = { destinations: [first, second], prefix: "shop/shop", takenAt, signal };
    const ids: string[] = [];
    for (const [kind, destination] of [
      ["full", first],
      ["incremental", second],
      ["full", first],
      ["incremental", first],
    ] as const) {
      const id = await makeSnapshotId({ ...options, kind });
      ids.push(id);
      const bytes = Buffer.from("{}");
      await destination.put(`shop/shop/${id}/manifest.json`, () => bytesOf(bytes), { size: bytes.length, signal });
    }

    const sorted = ids
      .map((id) => parseSnapshotId(id) ?? expect.fail(id))
      .sort((left, right) => left.id.localeCompare(right.id))
      .sort(compareSnapshotIds);

    expect(ids).toEqual([
      "20261121T020000Z-full",
      "20261121T020000Z-incremental-2",
      "20261121T020000Z-full-3",
      "20261121T020000Z-incremental-4",
    ]);
    expect(sorted.map(({ id }) => id)).toEqual(ids);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("an id comes behind those that other databases of the job have of the same second", async () => {
  const otherIds = (start: string) =>
    ["20261121T020000Z-full", "20261121T020000Z-incremental-4"].filter((id) => id.startsWith(start));
  const options = { destinations: [], prefix: "shop/crm", kind: "full", otherIds, signal } as const;

  const beside = await makeSnapshotId({ ...options, takenAt });
  const later = await makeSnapshotId({ ...options, takenAt: new Date("2026-11-21T02:00:01.000Z") });

  expect([beside, later]).toEqual(["20261121T020000Z-full-5", "20261121T020001Z-full"]);
});
