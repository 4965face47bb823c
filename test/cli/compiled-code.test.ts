import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { runCli } from "../support/cli.ts";

let home: string;
let state: string;
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  state = join(home, "state");
});
afterEach(async () => {
  await rm(home, { recursive: true, force: true });
});

const run = (...args: readonly string[]) => runCli(args, { home, env: { NODE_COMPILE_CACHE: undefined } });
const listJobs = () => run("job", "list", "--json");

async function filesBelow(folder: string): Promise<readonly string[]> {
  const names = await readdir(folder, { recursive: true });
  const paths = names.map((name) => join(folder, name));
  const areFiles = await Promise.all(paths.map(async (path) => (await stat(path)).isFile()));
  return paths.filter((_, index) => areFiles[index]);
}

test("compiled code is kept beside the state, and found there again", async () => {
  await mkdir(state, { mode: 0o700 });

  const first = await listJobs();
  const kept = await filesBelow(join(state, "code"));
  const made = await Promise.all(kept.map(async (path) => (await stat(path)).mtimeMs));
  const second = await listJobs();

  expect(kept.length).toBeGreaterThan(3);
  expect(await filesBelow(join(state, "code"))).toEqual(kept);
  expect(await Promise.all(kept.map(async (path) => (await stat(path)).mtimeMs))).toEqual(made);
  expect([first.exitCode, second.exitCode]).toEqual([0, 0]);
  expect(second.stdout).toBe(first.stdout);
});

test("what became of kept code does not matter", async () => {
  await mkdir(state, { mode: 0o700 });
  const first = await listJobs();
  const kept = await filesBelow(join(state, "code"));
  await Promise.all(kept.map((path, index) => writeFile(path, index % 2 === 0 ? "" : Buffer.alloc(50_000, index))));

  const second = await listJobs();

  expect(second).toMatchObject({ exitCode: 0, stderr: "", stdout: first.stdout });
});

test("a command that leaves nothing behind keeps no code", async () => {
  expect((await run("completion", "bash")).exitCode).toBe(0);

  expect(await readdir(home)).toEqual([]);
});

test("a home that cannot be is no failure of what needs none", async () => {
  await writeFile(join(home, "file"), "");

  const result = await runCli(["completion", "bash", "--home", join(home, "file")]);

  expect(result).toMatchObject({ exitCode: 0, stderr: "" });
});

test.skipIf(process.platform === "win32")("code is not taken from where others may write", async () => {
  await mkdir(state);
  await chmod(state, 0o777);

  expect((await listJobs()).exitCode).toBe(0);

  expect(await readdir(state)).not.toContain("code");
});
