import { chmod, lstat, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { runCliHere } from "../support/cli.ts";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const cli = (...args: string[]) => runCliHere(args, { home: join(folder, "home"), cwd: folder });

async function writeJob(name: string, more = ""): Promise<string> {
  const file = join(folder, `${name}.yaml`);
  await writeFile(
    file,
    `version: 1\nname: ${name}\nsource: { url: "postgres://u:p@127.0.0.1:1/d" }\ndestinations: [{ type: local, path: b }]\n${more}`,
  );
  return file;
}

test.each([
  ["mode: native", "not-available"],
  ["notify: { email: me@example.com }", "not-available"],
  ['schedule: { full: "0 0 30 2 *" }', "invalid-job"],
])("job validate and run say the same of %s", async (more, code) => {
  const file = await writeJob("shop", `${more}\n`);

  const validate = await cli("job", "validate", file, "--json");
  const run = await cli("run", file, "--json");

  expect([validate.exitCode, run.exitCode]).toEqual([2, 2]);
  expect(run.last()["code"]).toBe(code);
  expect(validate.last()["jobs"]).toEqual([expect.objectContaining({ valid: false, problem: run.last()["message"] })]);
});

test("several jobs tell each error in full, with its hint, as one does", async () => {
  const [a, b] = [await writeJob("a"), await writeJob("b")];
  const bad = await writeJob("bad", "paralel: 2\n");
  const worse = await writeJob("worse", "mode: native\n");

  const run = await cli("run", a, b);
  const json = await cli("run", a, b, "--json");
  const validate = await cli("job", "validate", bad, a, worse);

  const words = "cannot connect to d at 127.0.0.1:1: nothing listens there";
  const lines = run.stderr.split("\n").filter((line) => /^(error|hint|cause):/.test(line));
  expect(lines.map((line) => line.split(":")[0])).toEqual(["error", "hint", "cause", "error", "hint", "cause"]);
  expect(run.stderr).toContain(`error: ${b}: ${words}\nhint:  Check host`);
  const hint = expect.stringContaining("Check host");
  expect(json.last()["errors"]).toMatchObject(
    [a, b].map((job) => ({ job, code: "unreachable", message: words, hint })),
  );
  expect([run.exitCode, json.exitCode, json.stderr]).toEqual([5, 5, ""]);
  expect(validate.stderr).toMatch(/^error: .*bad\.yaml:5:1: .*\nhint: {2}.*\nerror: .*mode: native.*\nhint: {2}.*\n$/);
  expect(validate.stdout).toBe(`valid: ${a}\n`);
});

const edit = (file: string, script: string, ...more: string[]) =>
  runCliHere(["job", "edit", file, ...more], {
    home: join(folder, "home"),
    cwd: folder,
    env: { EDITOR: `node -e '${script}' --` },
  });

const APPEND = (text: string) => `require("fs").appendFileSync(process.argv[1], "${text}")`;

test("job edit and disable take what defaults.yaml says for granted", async () => {
  await mkdir(join(folder, "home"), { recursive: true });
  await writeFile(join(folder, "home", "defaults.yaml"), "destinations: [{ type: local, path: /b }]\n");
  const file = join(folder, "shop.yaml");
  await writeFile(file, 'version: 1\nname: shop\nsource: { url: "postgres://u:p@127.0.0.1:1/d" }\n');

  const edited = await edit(file, APPEND("parallel: 3\\n"));
  const disabled = await cli("job", "disable", file);

  expect([edited.exitCode, disabled.exitCode]).toEqual([0, 0]);
  expect(await readFile(file, "utf8")).toMatch(/parallel: 3\n(.*\n)*enabled: false|enabled: false\n(.*\n)*parallel: 3/);
});

test("job enable does not say that a job is on which defaults.yaml switches off", async () => {
  await mkdir(join(folder, "home"), { recursive: true });
  await writeFile(join(folder, "home", "defaults.yaml"), "enabled: false\n");
  const file = await writeJob("shop");

  const { exitCode, last } = await cli("job", "enable", file, "--json");

  expect([exitCode, last()["code"]]).toEqual([9, "off-by-default"]);
});

test("an edit that is not valid changes nothing and is kept", async () => {
  const file = await writeJob("shop", "# a comment\n");
  const before = await readFile(file, "utf8");

  const { exitCode, last } = await edit(file, APPEND("paralel: 3\\n"), "--json");

  expect([exitCode, await readFile(file, "utf8")]).toEqual([2, before]);
  const kept = /kept in (\S+shop\.yaml):/.exec(String(last()["hint"]))?.[1] ?? "";
  expect(await readFile(kept, "utf8")).toBe(`${before}paralel: 3\n`);
  expect((await stat(kept)).mode & 0o077).toBe(0);
  await rm(join(kept, ".."), { recursive: true });
});

test("an edit does not undo what changed the job file meanwhile", async () => {
  const file = await writeJob("shop");
  const meanwhile = `require("fs").appendFileSync("${file}", "enabled: false\\n")`;

  const { exitCode, last } = await edit(file, `${meanwhile};${APPEND("parallel: 3\\n")}`, "--json");

  expect([exitCode, last()["code"]]).toEqual([9, "changed"]);
  expect(await readFile(file, "utf8")).toMatch(/enabled: false\n$/);
  const kept = /kept in (\S+):/.exec(String(last()["hint"]))?.[1] ?? "";
  await rm(join(kept, ".."), { recursive: true });
});

test("job edit and disable keep the mode of the job file and the link that leads to it", async () => {
  const file = await writeJob("shop");
  await chmod(file, 0o640);
  const linked = join(folder, "linked.yaml");
  await symlink(file, linked);

  const edited = await edit(linked, APPEND("parallel: 3\\n"));
  const disabled = await cli("job", "disable", linked);

  expect([edited.exitCode, disabled.exitCode]).toEqual([0, 0]);
  expect((await lstat(linked)).isSymbolicLink()).toBe(true);
  expect((await stat(file)).mode & 0o777).toBe(0o640);
  expect(await readFile(file, "utf8")).toMatch(/parallel: 3/);
});
