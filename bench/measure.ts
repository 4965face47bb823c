import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";

export interface Measurement {
  readonly seconds: number;
  /** Highest resident memory of the process itself, in MiB; undefined where the system does not tell (not Linux). */
  readonly peakMiB: number | undefined;
  /** Time of the processor that the process itself took; undefined where the system does not tell. */
  readonly cpuSeconds: number | undefined;
}

/** Runs a command to its end and measures it as a whole process. Fails with its last words when it fails. */
export async function measure(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Measurement> {
  const startedAt = performance.now();
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, ...env } });
  let words = "";
  child.stderr.on("data", (chunk: Buffer) => {
    words = (words + chunk.toString()).slice(-4000);
  });
  let peakMiB: number | undefined;
  let cpuSeconds: number | undefined;
  const watch = setInterval(() => {
    peakMiB = peakOf(child.pid) ?? peakMiB;
    cpuSeconds = cpuSecondsOf(child.pid) ?? cpuSeconds;
  }, 50);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  clearInterval(watch);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${code}:\n${words}`);
  return { seconds: (performance.now() - startedAt) / 1000, peakMiB, cpuSeconds };
}

/** The kernel's own high-water mark, so that a poll now and then misses no peak but the last moment's. */
function peakOf(pid: number | undefined): number | undefined {
  try {
    const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return line ? Number(line[1]) / 1024 : undefined;
  } catch {
    return undefined;
  }
}

/** Both times are counted in hundredths of a second on every Linux. */
function cpuSecondsOf(pid: number | undefined): number | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return undefined;
  }
}

/** Bytes of all files below a folder. */
export async function bytesBelow(folder: string): Promise<number> {
  let total = 0;
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    total += entry.isDirectory() ? await bytesBelow(path) : (await lstat(path)).size;
  }
  return total;
}

export function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  const middle = Math.floor(sorted.length / 2);
  const [low, high] = [sorted[middle - 1] ?? 0, sorted[middle] ?? 0];
  return sorted.length % 2 === 1 ? high : (low + high) / 2;
}
