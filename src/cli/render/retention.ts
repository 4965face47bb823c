import { formatBytes, formatPlural } from "../format.ts";
import type { Output } from "../output.ts";
import { plain } from "../text-table.ts";

interface KeptSnapshot {
  readonly id: string;
  readonly database: string;
  readonly destination: string;
  readonly reasons: readonly string[];
  readonly bytesForOthers?: number | undefined;
}

interface RemovedSnapshot {
  readonly id: string;
  readonly database: string;
  readonly destination: string;
  readonly reason: string;
}

/** Prints every snapshot with why it stays or goes, for each database and destination. */
export function printRetention(
  output: Output,
  result: {
    readonly kept: readonly KeptSnapshot[];
    readonly removed: readonly RemovedSnapshot[];
    readonly dryRun: boolean;
  },
): void {
  const { paint } = output;
  const all = [
    ...result.kept.map((one) => ({ ...one, fate: paint.green("kept"), why: one.reasons.join(", ") })),
    ...result.removed.map((one) => ({
      ...one,
      fate: paint.yellow(result.dryRun ? "would go" : "removed"),
      why: one.reason,
    })),
  ];
  if (all.length === 0) {
    output.line("no snapshots yet");
    return;
  }
  const groups = Map.groupBy(all, ({ database, destination }) => `${plain(database)} at ${plain(destination)}`);
  for (const [group, snapshots] of groups) {
    output.line(`${group}:`);
    output.table(
      [{ title: "snapshot" }, { title: "what" }, { title: "why" }],
      snapshots
        .toSorted((left, right) => (left.id < right.id ? -1 : 1))
        .map(({ id, fate, why }) => [plain(id), fate, plain(why)]),
    );
  }
  const verb = result.dryRun ? "would be removed; nothing was" : "removed";
  output.line(`${formatPlural(result.removed.length, "snapshot")} ${verb}, ${result.kept.length} kept`);
  const needed = result.kept.flatMap(({ bytesForOthers }) => bytesForOthers ?? []);
  if (needed.length === 0) return;
  const bytes = formatBytes(needed.reduce((sum, one) => sum + one, 0));
  output.line(`of these ${needed.length} (${bytes}) only because later ones refer to them, and as long as those stay`);
}

/** Prints one line for each snapshot that a run removed. */
export function printRemoved(output: Output, removed: readonly RemovedSnapshot[]): void {
  for (const { id, destination } of removed) {
    output.line(`${output.paint.dim("pruned:")} ${plain(id)} at ${plain(destination)}`);
  }
}
