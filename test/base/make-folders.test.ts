import { mkdtemp, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { makeFolders } from "../../src/base/make-folders.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test("makes all that is missing, for this user alone, also when many do so at once", async () => {
  const path = join(folder, "a/b/c");

  await Promise.all(Array.from({ length: 20 }, () => makeFolders(path)));

  for (const name of ["a", "a/b", "a/b/c"]) expect((await stat(join(folder, name))).mode & 0o777).toBe(0o700);
  await makeFolders(path);
  await makeFolders("/");
});

test("takes a link to a folder for one, and neither a file nor a link to nothing", async () => {
  await symlink(folder, join(folder, "link"));
  await symlink(join(folder, "nothing"), join(folder, "dangling"));
  await writeFile(join(folder, "file"), "");

  await makeFolders(join(folder, "link"));

  await expect(makeFolders(join(folder, "file"))).rejects.toMatchObject({ code: "EEXIST" });
  await expect(makeFolders(join(folder, "file/below"))).rejects.toMatchObject({ code: "ENOTDIR" });
  await expect(makeFolders(join(folder, "dangling"))).rejects.toMatchObject({ code: "EEXIST" });
});

test.runIf(process.platform === "linux")("gives up where a folder is seen in which none can be made", async () => {
  await expect(makeFolders("/proc/rowkeep/backups")).rejects.toMatchObject({ code: "ENOENT" });
});
