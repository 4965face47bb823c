import type { JobStatus } from "../../usecases/job-states.ts";
import { formatTime } from "../format.ts";
import type { Output } from "../output.ts";
import { plain } from "../text-table.ts";

/** Prints the state of jobs: green active, orange last run failed, red switched off. */
export function printJobs(output: Output, jobs: readonly JobStatus[], now: Date): void {
  if (jobs.length === 0) {
    output.line("no jobs yet: rowkeep job create makes one");
    return;
  }
  const { paint } = output;
  const painted = {
    ok: paint.green,
    never: paint.green,
    running: paint.green,
    failed: paint.yellow,
    disabled: paint.red,
  };
  const words = { ok: "active", never: "never ran", running: "running", failed: "last run failed", disabled: "off" };
  const time = (text: string | undefined) => (text ? formatTime(text) : "-");
  output.table(
    [
      { title: "job" },
      { title: "state" },
      { title: "last full", goesAt: 4 },
      { title: "last incremental", goesAt: 3 },
      { title: "last good", goesAt: 2 },
      { title: "age" },
      { title: "next run", goesAt: 5 },
      { title: "node", goesAt: 1 },
    ],
    jobs.map((job) => [
      plain(job.name),
      painted[job.state](job.problem ? "unusable" : words[job.state]) +
        (job.failuresInARow > 1 ? ` (${job.failuresInARow}×)` : ""),
      time(job.lastFull),
      time(job.lastIncremental),
      time(job.lastSuccess),
      job.lastSuccess ? ageOf(job.lastSuccess, now) : "-",
      time(job.nextRun),
      plain(job.node ?? "-"),
    ]),
  );
  for (const { name, problem } of jobs) {
    if (problem) output.warn(`${plain(name)}: ${plain(problem)}`);
  }
}

function ageOf(text: string, now: Date): string {
  const minutes = Math.max(0, Math.round((now.getTime() - Date.parse(text)) / 60_000));
  if (minutes < 120) return `${minutes} min`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} d`;
}
