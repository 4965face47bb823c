import { spawnSync } from "node:child_process";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { runCli } from "../support/cli.ts";

test("shows every command in help, also those that are not available yet", async () => {
  const result = await runCli(["--help"]);

  expect(result).toMatchObject({ exitCode: 0, stderr: "" });
  for (const name of [
    "job",
    "run",
    "export",
    "import",
    "list",
    "show",
    "restore",
    "undo",
    "compare",
    "verify",
    "prune",
  ]) {
    expect(result.stdout).toMatch(new RegExp(`^ {2}${name}\\b`, "m"));
  }
  for (const name of ["sync", "status", "history", "schedule", "daemon", "doctor", "key", "demo", "completion"]) {
    expect(result.stdout).toMatch(new RegExp(`^ {2}${name}\\b`, "m"));
  }
});

test("prints the version of the package", async () => {
  const result = await runCli(["--version"]);

  expect(result).toMatchObject({ exitCode: 0, stderr: "" });
  expect(result.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test("names the nearest command for an unknown one", async () => {
  const result = await runCli(["lst", "shop"]);

  expect(result).toMatchObject({ exitCode: 2, stdout: "" });
  expect(result.stderr).toBe("error: cannot read the command line: unknown command 'lst'\nhint:  Did you mean list?\n");
});

test("names the nearest option for an unknown one", async () => {
  const result = await runCli(["verify", "shop", "--smaple", "5%"]);

  expect(result).toMatchObject({ exitCode: 2, stdout: "" });
  expect(result.stderr).toContain("unknown option '--smaple'");
  expect(result.stderr).toContain("hint:  Did you mean --sample?");
});

test.each(["--owners", "--grants"])("refuses %s without --create, which would do nothing", async (flag) => {
  const result = await runCli(["restore", "shop", flag]);

  expect(result).toMatchObject({ exitCode: 2, stdout: "" });
  expect(result.stderr).toContain(`cannot use ${flag} without --create`);
});

test("help shows what --help shows, of commands inside commands too, and knows no others", async () => {
  const pairs = [[], ["list"], ["job"], ["job", "create"]];
  const asked = await Promise.all(pairs.map(async (names) => runCli(["help", ...names])));
  const flagged = await Promise.all(pairs.map(async (names) => runCli([...names, "--help"])));
  const [within, unknown] = await Promise.all([runCli(["job", "help", "create"]), runCli(["help", "job", "nope"])]);

  for (const result of asked) expect(result).toMatchObject({ exitCode: 0, stderr: "" });
  expect(asked.map(({ stdout }) => stdout)).toEqual(flagged.map(({ stdout }) => stdout));
  expect(within).toMatchObject({ exitCode: 0, stderr: "", stdout: asked.at(-1)?.stdout });
  expect(unknown).toMatchObject({ exitCode: 2, stdout: "" });
  expect(unknown.stderr).toMatch(/^error: cannot read the command line: unknown command 'nope'\n/);
});

test("calls a missing argument and no command at all wrong usage", async () => {
  const [missing, none] = await Promise.all([runCli(["list"]), runCli([])]);

  expect(missing).toMatchObject({ exitCode: 2, stdout: "" });
  expect(missing.stderr).toContain("missing required argument 'job'");
  expect(none).toMatchObject({ exitCode: 2, stdout: "" });
  expect(none.stderr).toContain("rowkeep --help");
});

test("tells a command line that it cannot read as one JSON line with --json, wherever the flag stands", async () => {
  const results = await Promise.all([
    runCli(["lst", "--json"]),
    runCli(["--json", "list"]),
    runCli(["list", "a", "--nope", "--json"]),
  ]);

  for (const result of results) {
    expect(result).toMatchObject({ exitCode: 2, stderr: "" });
    expect(result.json()).toHaveLength(1);
    expect(result.last()).toMatchObject({ type: "error", exitCode: 2 });
    expect(result.last()).toHaveProperty("message");
    expect(result.last()).toHaveProperty("hint");
  }
});

test.each([["daemon"], ["schedule", "preview", "shop"]])(
  "says that %s is not available yet, whatever follows",
  async (...args) => {
    const result = await runCli(args);

    expect(result).toMatchObject({ exitCode: 2, stdout: "" });
    expect(result.stderr).toMatch(/^error: cannot \w+: not available yet\n/);
  },
);

test.each([
  [["run", "--due"], "--due"],
  [["run", "shop", "--due"], "--due"],
  [["status", "--prometheus"], "--prometheus"],
])("says that an option of %j is not available yet", async (args, flag) => {
  const result = await runCli([...args, "--json"]);

  expect(result).toMatchObject({ exitCode: 2, stderr: "" });
  expect(result.last()).toMatchObject({ code: "not-available", message: `cannot use ${flag}: not available yet` });
});

test.skipIf(process.platform === "win32")("says that the folder was removed in which it was called", async () => {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  const entry = fileURLToPath(new URL("../../bin/rowkeep.js", import.meta.url));
  const script = 'rmdir "$PWD" && exec "$0" "$1" status';

  const ended = spawnSync("/bin/sh", ["-c", script, process.execPath, entry], { cwd: folder, encoding: "utf8" });

  expect(ended.stderr).toMatch(/^error: cannot find the current folder: it was removed\nhint: /m);
  expect(ended).toMatchObject({ status: 2, stdout: "" });
});

test("says that run needs a job", async () => {
  const result = await runCli(["run"]);

  expect(result).toMatchObject({ exitCode: 2, stdout: "" });
  expect(result.stderr).toContain("error: cannot run: no job is named\nhint:  ");
});

test("prints no colours without a terminal, and none with NO_COLOR or TERM=dumb either", async () => {
  const results = await Promise.all([
    runCli(["lst"]),
    runCli(["lst"], { env: { NO_COLOR: "1" } }),
    runCli(["lst"], { env: { TERM: "dumb" } }),
    runCli(["lst", "--no-color"], { env: { FORCE_COLOR: "1" } }),
  ]);

  for (const { stderr } of results) expect(stderr).not.toContain("\u001b");
});

test("prints colours where FORCE_COLOR asks for them", async () => {
  const result = await runCli(["lst"], { env: { FORCE_COLOR: "1" } });

  expect(result.stderr).toContain("\u001b[31merror:");
});

test.each(["bash", "zsh", "fish", "pwsh"])(
  "writes a completion script for %s that knows commands and options",
  async (shell) => {
    const result = await runCli(["completion", shell]);

    expect(result).toMatchObject({ exitCode: 0, stderr: "" });
    expect(result.stdout).toContain("restore");
    expect(result.stdout).toContain("allow-conversion");
  },
);

test("refuses an unknown shell and names the known ones", async () => {
  const result = await runCli(["completion", "tcsh", "--json"]);

  expect(result.exitCode).toBe(2);
  expect(result.last()).toMatchObject({
    type: "error",
    code: "unknown-shell",
    hint: "Choose one of bash, zsh, fish, pwsh.",
  });
});

test("ends well when stdout is closed early", async () => {
  const result = await runCli(["completion", "bash"], { during: (child) => child.stdout?.destroy() });

  expect(result).toMatchObject({ exitCode: 0, signal: null, stderr: "" });
});
