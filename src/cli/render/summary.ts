import { formatBytes, formatCount, formatDuration } from "../format.ts";
import type { Output } from "../output.ts";
import { plain } from "../text-table.ts";

const right = (title: string) => ({ title, align: "right" as const });

/** What became of one database of one job; without a database, of the job before it came to one. */
export interface RunOutcome {
  readonly job: string;
  readonly database?: string | undefined;
  /** Missing: it failed. */
  readonly snapshot?:
    | {
        readonly id: string;
        readonly rows: number;
        readonly storedBytes: number;
        readonly durationMs: number;
        readonly destinations: readonly { readonly status: string }[];
      }
    | undefined;
}

/** Prints one line for each database where several were backed up: between them stands much else. */
export function printRunSummary(output: Output, outcomes: readonly RunOutcome[]): void {
  if (outcomes.length < 2) return;
  const { paint } = output;
  const fateOf = ({ snapshot }: RunOutcome) => {
    if (!snapshot) return paint.red("failed");
    const isEverywhere = snapshot.destinations.every(({ status }) => status !== "failed");
    return isEverywhere ? paint.green("done") : paint.yellow("incomplete");
  };
  output.line();
  output.table(
    [
      ...["job", "database", "outcome", "snapshot"].map((title) => ({ title })),
      ...["rows", "size", "duration"].map(right),
    ],
    outcomes.map((outcome) => {
      const { job, database = "-", snapshot } = outcome;
      const facts = snapshot && [
        plain(snapshot.id),
        formatCount(snapshot.rows),
        formatBytes(snapshot.storedBytes),
        formatDuration(snapshot.durationMs),
      ];
      return [plain(job), plain(database), fateOf(outcome), ...(facts ?? ["-"])];
    }),
  );
}

/** What verify found of one database. */
export interface VerifyOutcome {
  readonly database: string;
  readonly snapshots: readonly {
    readonly ok: boolean;
    readonly archived?: unknown;
    readonly locked?: true | undefined;
  }[];
  readonly unread: readonly { readonly destination: string }[];
}

/** Prints how many copies of snapshots are good, one line for each database where there are several. */
export function printVerifySummary(output: Output, outcomes: readonly VerifyOutcome[]): void {
  if (outcomes.length < 2) return;
  const { paint } = output;
  const isMissing = outcomes.some(({ unread }) => unread.length > 0);
  output.line();
  output.table(
    [
      { title: "database" },
      ...["good", "not wholly read", "bad"].map(right),
      ...(isMissing ? [{ title: "did not answer" }] : []),
    ],
    outcomes.map(({ database, snapshots, unread }) => {
      const bad = snapshots.filter(({ ok }) => !ok).length;
      const partial = snapshots.filter(({ ok, archived, locked }) => ok && (archived !== undefined || locked)).length;
      return [
        plain(database),
        formatCount(snapshots.length - bad - partial),
        partial > 0 ? paint.yellow(formatCount(partial)) : "0",
        bad > 0 ? paint.red(formatCount(bad)) : "0",
        plain(unread.map(({ destination }) => destination).join(", ")),
      ];
    }),
  );
}
