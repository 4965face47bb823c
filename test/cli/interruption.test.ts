import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const module = fileURLToPath(new URL("../../src/cli/interruption.ts", import.meta.url));

/** Works until it is told to stop, then takes its time, as closing connections does. */
const program = `
  import { listenForSignals } from ${JSON.stringify(module)};
  const interruption = listenForSignals((text) => process.stderr.write(text));
  const timer = setInterval(() => undefined, 1000);
  interruption.signal.addEventListener("abort", () => {
    setTimeout(() => {
      process.stdout.write("closed\\n");
      process.exitCode = 42;
      clearInterval(timer);
    }, 400);
  });
  process.stdout.write("ready\\n");
`;

test.skipIf(process.platform === "win32").each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
  "lets the work end in an orderly way at the first %s",
  async (signal) => {
    const result = await runProgram((child) => child.kill(signal));

    expect(result).toMatchObject({ code: 42, signal: null, stdout: "ready\nclosed\n" });
    expect(result.stderr).toContain("stopping in an orderly way");
  },
);

test.skipIf(process.platform === "win32").each([
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const)("ends at once at the second %s", async (signal, code) => {
  const result = await runProgram((child) => {
    child.kill(signal);
    child.stderr?.once("data", () => child.kill(signal));
  });

  expect(result).toMatchObject({ code, signal: null, stdout: "ready\n" });
});

async function runProgram(whenReady: (child: ChildProcess) => void) {
  const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", program], {
    timeout: 20_000,
    killSignal: "SIGKILL",
  });
  let stdout = "";
  let stderr = "";
  child.stderr.on("data", (text) => {
    stderr += text;
  });
  child.stdout.on("data", (text) => {
    if (stdout === "") whenReady(child);
    stdout += text;
  });
  return new Promise((resolve) =>
    child.once("close", (code, signal) => resolve({ code, signal, stdout, stderr })),
  ) as Promise<{ code: number | null; signal: string | null; stdout: string; stderr: string }>;
}
