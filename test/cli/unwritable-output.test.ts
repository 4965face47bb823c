import { execFileSync, spawnSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { mkdir, mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const entry = fileURLToPath(new URL("../../bin/rowkeep.js", import.meta.url));
const ERROR = "error: cannot write the output: no space left on the device\n";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
});

afterEach(() => rm(folder, { recursive: true, force: true }));

function run(args: readonly string[], places: { readonly stdout?: string; readonly stderr?: string }) {
  const open = (path: string | undefined) => (path === undefined ? ("pipe" as const) : openSync(path, "w"));
  const stdio = ["ignore" as const, open(places.stdout), open(places.stderr)];
  try {
    const env = { PATH: process.env.PATH, ROWKEEP_HOME: join(folder, "home") };
    const ended = spawnSync(process.execPath, [entry, ...args], { stdio, env, encoding: "utf8", timeout: 60_000 });
    return { exitCode: ended.status, stdout: ended.stdout, stderr: ended.stderr };
  } finally {
    for (const one of stdio) if (typeof one === "number") closeSync(one);
  }
}

describe.runIf(process.platform === "linux")("output that cannot be written", () => {
  test.each([[["--help"]], [["completion", "bash"]], [["job", "list"]], [["job", "list", "--json"]]])(
    "is an error with a hint and exit code 2: rowkeep %j",
    (args) => {
      const { exitCode, stderr } = run(args, { stdout: "/dev/full" });

      expect([exitCode, stderr]).toEqual([2, expect.stringContaining(ERROR)]);
      expect(stderr.match(/^\w+:/gm)).toEqual(["error:", "hint:"]);
    },
  );

  test("leaves the exit code of a command that failed", () => {
    const { exitCode, stderr } = run(["export", "postgres://u@127.0.0.1:1/d", "file", "--json"], {
      stdout: "/dev/full",
    });

    expect([exitCode, stderr]).toEqual([5, expect.stringContaining(ERROR)]);
  });

  test("is dropped on stderr", () => {
    const failed = run(["lst"], { stderr: "/dev/full" });
    const done = run(["job", "list"], { stderr: "/dev/full" });
    const both = run(["job", "list"], { stdout: "/dev/full", stderr: "/dev/full" });

    expect([failed.exitCode, done.exitCode, both.exitCode]).toEqual([2, 0, 2]);
    expect(done.stdout).not.toBe("");
  });

  test("is an error also where only its end has no room", async ({ skip }) => {
    if (process.getuid?.() !== 0) skip("a full disk is made by root");
    const small = join(folder, "small");
    await mkdir(small);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4k", "tmpfs", small]);
    try {
      const { exitCode, stderr } = run(["completion", "bash"], { stdout: join(small, "script") });

      expect((await stat(join(small, "script"))).size).toBe(4096);
      expect([exitCode, stderr]).toEqual([2, expect.stringContaining(ERROR)]);
    } finally {
      execFileSync("umount", [small]);
    }
  });
});
