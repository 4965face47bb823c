import { mkdtemp, rm, writeFile } from "node:fs/promises";
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
