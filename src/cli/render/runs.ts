import { formatDuration, formatTime } from "../format.ts";
import type { Output } from "../output.ts";
import { plain } from "../text-table.ts";

/** One run as `history --json` gives it. */
export interface ListedRun {
  readonly id: string | number;
  readonly job: string;
  readonly kind: string;
  readonly startedAt: string;
  readonly durationMs?: number | undefined;
  readonly outcome: string;
  readonly error?: string | undefined;
  readonly snapshot?: string | undefined;
}

/** Prints past runs, with the server's own words where one failed. */
export function printRuns(output: Output, runs: readonly ListedRun[]): void {
  if (runs.length === 0) {
    output.line("no runs yet");
    return;
  }
  const { paint } = output;
  const colourOf = (outcome: string) =>
    outcome === "success" ? paint.green : outcome === "failure" ? paint.red : paint.yellow;
  output.table(
    [
      { title: "started" },
      { title: "kind" },
      { title: "duration", align: "right" },
      { title: "outcome" },
      { title: "what" },
    ],
    runs.map((run) => [
      formatTime(run.startedAt),
      plain(run.kind),
      run.durationMs === undefined ? "" : formatDuration(run.durationMs),
      colourOf(run.outcome)(plain(run.outcome)),
      plain([run.snapshot, run.error].filter((text) => text !== undefined).join(": ")),
    ]),
  );
}
