import { formatBytes, formatDuration, formatTime } from "../format.ts";
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
  readonly storedBytes?: number | undefined;
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
      { title: "size", align: "right" },
      { title: "outcome" },
      { title: "what" },
    ],
    runs.map((run) => [
      formatTime(run.startedAt),
      plain(run.kind),
      // Nobody knows how long a run took that was killed.
      run.durationMs ? formatDuration(run.durationMs) : "",
      run.storedBytes === undefined ? "" : formatBytes(run.storedBytes),
      colourOf(run.outcome)(plain(run.outcome)),
      plain([run.snapshot, run.error].filter((text) => text !== undefined).join(": ")),
    ]),
  );
}
