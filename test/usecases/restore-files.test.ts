import { chmod, mkdir, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Manifest, StoredFile } from "../../src/snapshot/manifest.ts";
import type { SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { checkFilePlaces, restoreFiles } from "../../src/usecases/restore-files.ts";

const signal = new AbortController().signal;

/** A snapshot of nothing but these entries. */
function readerOf(entries: readonly Pick<StoredFile, "path" | "type" | "mode" | "linkTarget">[]): SnapshotReader {
  const files = entries.map((entry) => ({ ...entry, modifiedAt: "2001-01-01T00:00:00Z", size: 0, chunks: [] }));
  return {
    manifest: { files } as unknown as Manifest,
    passedOver: [],
    async *chunks() {},
    readStates: () => Promise.reject(new Error("nobody asks")),
    async [Symbol.asyncDispose]() {},
  };
}

test.skipIf(process.platform === "win32")(
  "a folder that is a link by then does not get its mode elsewhere",
  async () => {
    const parent = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
    const [folder, outside] = [join(parent, "folder"), join(parent, "outside")];
    await mkdir(folder);
    await mkdir(outside);
    await chmod(outside, 0o700);
    const reader = readerOf([
      { path: "/x", type: "symlink", mode: 0o777, linkTarget: outside },
      { path: "/x", type: "directory", mode: 0o777 },
    ]);

    const restored = restoreFiles({ reader, folder, signal, report: () => undefined });

    await expect(restored).rejects.toMatchObject({ kind: "refused" });
    const { mode, mtimeMs } = await stat(outside);
    expect(mode & 0o777).toBe(0o700);
    expect(mtimeMs).toBeGreaterThan(Date.parse("2002-01-01"));
    await rm(parent, { recursive: true });
  },
);

test("paths that lead elsewhere are refused before anything is written", async () => {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  for (const path of ["/a\0b", "../../x", ""]) {
    const reader = readerOf([
      { path: "/fine", type: "directory", mode: 0o755 },
      { path, type: "file", mode: 0o644 },
    ]);

    await expect(checkFilePlaces({ reader, folder })).rejects.toMatchObject({ kind: "archive", code: "invalid-path" });
  }
  expect(await readdir(folder)).toEqual([]);
  await rm(folder, { recursive: true });
});
