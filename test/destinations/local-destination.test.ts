import { execFileSync } from "node:child_process";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import {
  describeDestination,
  expectReason,
  failureOf,
  fresh,
  leaveFileIn,
  listKeys,
  put,
  readAll,
  readText,
  sliced,
} from "./contract.ts";

const signal = new AbortController().signal;
const isRoot = process.getuid?.() === 0;

let contractFolder = "";
describeDestination(
  "local",
  async () => {
    const path = await mkdtemp(join(tmpdir(), "rowkeep-local-"));
    contractFolder = path;
    return {
      destination: await openDestination({ type: "local", path }, { signal }),
      another: () => openDestination({ type: "local", path }, { signal }),
      rawNames: () => readdir(path, { recursive: true }),
      [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
    };
  },
  { manyObjects: 1500, leaveFile: (name, ageMs) => leaveFileIn(contractFolder, name, ageMs) },
);

describe("a local destination", () => {
  let base: string;
  beforeAll(async () => {
    base = await realpath(await mkdtemp(join(tmpdir(), "rowkeep-local-")));
  });
  afterAll(async () => {
    await chmod(base, 0o700);
    await rm(base, { recursive: true });
  });
  const openAt = (path: string) => openLocalDestination({ type: "local", path }, { signal });
  const openNew = async () => {
    const path = join(base, fresh());
    return { path, there: await openAt(path) };
  };

  test("keeps its files and folders from other users", async () => {
    const { path, there } = await openNew();

    await put(there, "a/b/object", "x");

    const modes = await Promise.all(
      ["", "a", "a/b", "a/b/object"].map(async (name) => (await lstat(join(path, name))).mode & 0o777),
    );
    expect(modes).toEqual([0o700, 0o700, 0o700, 0o600]);
  });

  test("makes a file private even when it replaces a public one", async () => {
    const { path, there } = await openNew();
    await writeFile(join(path, "object"), "old", { mode: 0o644 });

    await put(there, "object", "new");

    expect((await lstat(join(path, "object"))).mode & 0o777).toBe(0o600);
  });

  test("does not write through a planted symbolic link to a file, but replaces the link", async () => {
    const { path, there } = await openNew();
    const victim = join(base, fresh());
    await symlink(victim, join(path, "object"));

    await put(there, "object", "x");

    await expect(lstat(victim)).rejects.toMatchObject({ code: "ENOENT" });
    expect((await lstat(join(path, "object"))).isFile()).toBe(true);
  });

  test("does not read through a planted symbolic link to a file", async () => {
    const { path, there } = await openNew();
    await writeFile(join(base, "secret"), "secret");
    await symlink(join(base, "secret"), join(path, "object"));

    expectReason(await failureOf(readAll(there, "object")), "denied");
    expect(await there.stat("object", { signal })).toBeUndefined();
    expect(await listKeys(there, "")).toEqual([]);
  });

  test("neither writes, reads, lists nor removes through a planted symbolic link to a folder", async () => {
    const { path, there } = await openNew();
    const outside = join(base, fresh());
    await mkdir(outside);
    await writeFile(join(outside, "victim"), "keep me");
    await symlink(outside, join(path, "job"));

    expectReason(await failureOf(put(there, "job/victim", "x")), "denied");
    expectReason(await failureOf(put(there, "job/new/victim", "x")), "denied");
    expectReason(await failureOf(readAll(there, "job/victim")), "denied");
    expectReason(await failureOf(there.remove("job/victim", { signal })), "denied");
    expectReason(await failureOf(listKeys(there, "job/")), "denied");
    expect(await listKeys(there, "")).toEqual([]);
    expect(await readdir(outside)).toEqual(["victim"]);
    expect(await readFile(join(outside, "victim"), "utf8")).toBe("keep me");
  });

  test("may itself be a symbolic link that the person chose", async () => {
    const real = join(base, fresh());
    const chosen = join(base, fresh());
    await mkdir(real);
    await symlink(real, chosen);

    const there = await openAt(chosen);
    await put(there, "job/object", "x");

    expect(await readdir(join(real, "job"))).toEqual(["object"]);
    expect(await listKeys(there, "")).toEqual(["job/object"]);
  });

  test("has bytes of its own, also where a file could be linked into two folders of one disk", async () => {
    const file = join(base, fresh());
    await writeFile(file, "rows");
    const store = async (key: string) => {
      const { path, there } = await openNew();
      const read = async function* () {
        yield await readFile(file);
      };
      await there.put(key, read, { size: 4, file, exclusive: true, signal });
      return join(path, key);
    };

    const paths = [await store("a/volume"), await store("a/volume")];
    paths.push(...(await Promise.all(["b/x", "b/y", "b/z"].map(store))));

    expect(await Promise.all(paths.map((path) => readFile(path, "utf8")))).toEqual(paths.map(() => "rows"));
    const files = await Promise.all([file, ...paths].map((path) => stat(path)));
    // The first one took the file over.
    expect(new Set(files.map(({ ino }) => ino)).size).toBe(paths.length);
  });

  test("removes the folders that become empty, but not its own", async () => {
    const { path, there } = await openNew();
    await put(there, "job/db/one/object", "x");
    await put(there, "job/db/two/object", "y");

    await there.remove("job/db/one/object", { signal });
    expect(await readdir(join(path, "job/db"))).toEqual(["two"]);
    await there.remove("job/db/two/object", { signal });

    expect(await readdir(path)).toEqual([]);
  });

  test("keeps foreign files and their folders", async () => {
    const { path, there } = await openNew();
    await put(there, "job/object", "x");
    await writeFile(join(path, "job", "notes of mine.txt"), "mine");

    await there.remove("job/object", { signal });

    expect(await readdir(join(path, "job"))).toEqual(["notes of mine.txt"]);
    expect(await listKeys(there, "")).toEqual([]);
  });

  test("neither lists nor gives what a dead process left unfinished, and cleans it when it is old", async () => {
    const { path, there } = await openNew();
    await mkdir(join(path, "job"));
    for (const [name, minutes] of [
      ["old", 90],
      ["young", 10],
    ] as const) {
      const file = join(path, "job", `${name}.tar.0a1b2c3d4e5f.in-progress`);
      await writeFile(file, "half");
      const then = new Date(Date.now() - minutes * 60_000);
      await utimes(file, then, then);
    }
    await put(there, "job/whole", "x");
    expect(await listKeys(there, "")).toEqual(["job/whole"]);

    const removed = await there.removeUnfinished("job/", { olderThanMs: 3_600_000, signal });

    expect(removed).toBe(1);
    expect((await readdir(join(path, "job"))).sort()).toEqual(["whole", "young.tar.0a1b2c3d4e5f.in-progress"]);
    expectReason(await failureOf(put(there, "job/x.in-progress", "x")), "invalid-key");
  });

  test("notices that an object became shorter while it is read", async () => {
    const { path, there } = await openNew();
    const bytes = Buffer.alloc(3 * 1024 * 1024);
    await there.put("object", sliced(bytes, bytes.length), { size: bytes.length, signal });

    const reading = (async () => {
      for await (const part of there.get("object", { signal })) {
        if (part.length > 0) await writeFile(join(path, "object"), "short");
      }
    })();

    expectReason(await failureOf(reading), "failed");
  });

  test("lists thousands of folders as it lists a few, and follows no link there", async () => {
    const { path, there } = await openNew();
    const outside = join(base, fresh());
    const names = Array.from({ length: 300 }, (_, index) => `folder-${index}`);
    const at = new Date("2026-11-21T02:00:00.123Z");
    for (const name of names) await mkdir(join(path, "many", name), { recursive: true });
    for (const name of names) await writeFile(join(path, "many", name, "object"), name);
    await utimes(join(path, "many/folder-7/object"), at, at);
    await mkdir(join(path, "many/folder-7/deeper"));
    await writeFile(join(path, "many/folder-7/deeper/object"), "x");
    await writeFile(join(path, "many/folder-8/not a key"), "x");
    await writeFile(join(path, "many/folder-9/object.abc.in-progress"), "x");
    await symlink(join(path, "many/folder-1/object"), join(path, "many/folder-2/link"));
    await mkdir(outside);
    await writeFile(join(outside, "object"), "x");
    await symlink(outside, join(path, "many/linked"));

    const keys = await listKeys(there, "many/");
    const some = await listKeys(there, "many/folder-7");

    expect(keys.sort()).toEqual([...names.map((name) => `many/${name}/object`), "many/folder-7/deeper/object"].sort());
    expect(some.filter((key) => key.startsWith("many/folder-7/")).sort()).toEqual([
      "many/folder-7/deeper/object",
      "many/folder-7/object",
    ]);
    for await (const info of there.list("many/folder-7/", { signal }))
      if (info.key === "many/folder-7/object") expect(info.modifiedAt).toEqual(at);
    for await (const info of there.list("many/", { signal }))
      if (info.key === "many/folder-7/object")
        expect(info).toEqual(await there.stat("many/folder-7/object", { signal }));
  });

  test.skipIf(isRoot)("says which of thousands of folders it may not look into", async () => {
    const { path, there } = await openNew();
    for (let index = 0; index < 300; index++) await mkdir(join(path, "many", `folder-${index}`), { recursive: true });
    await chmod(join(path, "many/folder-17"), 0);

    const failure = await failureOf(listKeys(there, "many/"));

    await chmod(join(path, "many/folder-17"), 0o700);
    expectReason(failure, "denied");
  });

  test("reads small objects in one go, and neither links, nor what is larger or missing", async () => {
    const { path, there } = await openNew();
    await mkdir(join(path, "job"));
    await mkdir(join(base, "outside"));
    await writeFile(join(base, "outside/object"), "secret");
    for (const [name, text] of Object.entries({ empty: "", small: "small", large: "larger" }))
      await writeFile(join(path, "job", name), text);
    await symlink(join(base, "outside/object"), join(path, "job/link"));
    await symlink(join(base, "outside"), join(path, "linked"));

    const keys = ["job/small", "job/large", "job/missing", "job/link", "linked/object", "job/empty"];
    const found = await there.getSmall(keys, { maxBytes: 5, signal });

    const texts = found.map((bytes) => (bytes ? Buffer.from(bytes).toString() : undefined));
    expect(texts).toEqual(["small", undefined, undefined, undefined, undefined, ""]);
  });

  test("lists and reads small objects in the ordinary way once its thread is gone", async () => {
    const { path, there } = await openNew();
    for (let index = 0; index < 250; index++) await mkdir(join(path, "many", `folder-${index}`), { recursive: true });
    await writeFile(join(path, "many/folder-249/object"), "x");
    await there[Symbol.asyncDispose]();

    const keys = await listKeys(there, "many/");
    const found = await there.getSmall(keys, { maxBytes: 5, signal });

    expect(keys).toEqual(["many/folder-249/object"]);
    expect(found[0]).toBeUndefined();
  });

  test("says that its drive is gone instead of showing nothing", async () => {
    const { path, there } = await openNew();
    await rm(path, { recursive: true });

    expectReason(await failureOf(listKeys(there, "")), "unreachable");
    expectReason(await failureOf(listKeys(there, "job/")), "unreachable");
    expectReason(await failureOf(put(there, "object", "x")), "unreachable");
  });

  test("refuses a file in the place of its folder", async () => {
    const path = join(base, fresh());
    await writeFile(path, "x");

    const failure = await failureOf(openAt(path));

    expectReason(failure, "failed");
    expect(failure.message).toMatch(/^cannot open .*: it is there and no folder$/);
  });

  test.runIf(process.platform === "linux")(
    "says so where no folder can be made, and does not try for ever",
    async () => {
      const failure = await failureOf(openAt("/proc/rowkeep/backups"));

      expectReason(failure, "not-found");
      expect(failure.hint).toContain("mounted");
    },
  );

  test.skipIf(!isRoot)("says access denied, as an ordinary user would see it", async () => {
    const { path, there } = await openNew();
    await put(there, "object", "x");
    await chmod(path, 0o500);
    await chmod(base, 0o755);

    const script = `
      import { openLocalDestination } from ${JSON.stringify(new URL("../../src/destinations/local-destination.ts", import.meta.url).href)};
      process.setegid(65534); process.seteuid(65534);
      const signal = new AbortController().signal;
      const there = await openLocalDestination({ type: "local", path: ${JSON.stringify(path)} }, { signal }).catch((error) => error);
      console.log(JSON.stringify({ code: there.code, hint: there.hint, message: there.message }));`;
    const output = execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });

    expect(JSON.parse(output)).toMatchObject({ code: "denied", hint: expect.stringContaining("Allow") });
    await chmod(path, 0o700);
  });

  // Needs the right to mount a file system of a few megabytes.
  test.skipIf(!isRoot || process.platform !== "linux")(
    "says that the disk is full and leaves nothing there",
    async () => {
      const path = join(base, fresh());
      await mkdir(path);
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", path]);
      try {
        const there = await openAt(path);
        const bytes = Buffer.alloc(6 * 1024 * 1024, 1);

        const failure = await failureOf(
          there.put("job/object", sliced(bytes, 100_000), { size: bytes.length, signal }),
        );

        expectReason(failure, "full");
        expect(failure.hint).toMatch(/^Free space/);
        expect(await readdir(path)).toEqual([]);
        await put(there, "job/small", "x");
        expect(await readText(there, "job/small")).toBe("x");
      } finally {
        execFileSync("umount", [path]);
      }
    },
  );
});
