import { formatBytes, formatCount, formatPlural } from "../format.ts";
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

/** Prints every snapshot once, with why it stays or goes; once more for destinations where that is otherwise. */
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
  for (const [database, snapshots] of Map.groupBy(all, (one) => one.database)) {
    const places = [...new Set(snapshots.map(({ destination }) => destination))];
    output.line(`${plain(database)} at ${plain(places.join(", "))}:`);
    const rows = Map.groupBy(snapshots, ({ id, fate, why }) => JSON.stringify([id, fate, why]));
    output.table(
      [{ title: "snapshot" }, { title: "what" }, { title: "why" }],
      [...rows.values()]
        .flatMap(([first, ...more]) =>
          first ? [{ ...first, at: [first, ...more].map((one) => one.destination) }] : [],
        )
        .toSorted((left, right) => (left.id < right.id ? -1 : 1))
        .map(({ id, fate, why, at }) => [
          plain(id),
          fate,
          plain(at.length < places.length ? `${why} (at ${at.join(", ")})` : why),
        ]),
    );
  }
  const verb = result.dryRun ? "would be removed; nothing was" : "removed";
  const sumOf = (of: (one: { readonly database: string }) => boolean) =>
    `${formatPlural(countOf(result.removed.filter(of)), "snapshot")} ${verb}, ${formatCount(countOf(result.kept.filter(of)))} kept`;
  const databases = [...new Set(all.map(({ database }) => database))];
  if (databases.length > 1) {
    for (const name of databases) output.line(`${plain(name)}: ${sumOf(({ database }) => database === name)}`);
  }
  output.line(`${databases.length > 1 ? "together: " : ""}${sumOf(() => true)}`);
  const needed = result.kept.filter(({ bytesForOthers }) => bytesForOthers !== undefined);
  if (needed.length === 0) return;
  const bytes = formatBytes(needed.reduce((sum, { bytesForOthers = 0 }) => sum + bytesForOthers, 0));
  output.line(
    `of these ${countOf(needed)} (${bytes}) only because later ones refer to them, and as long as those stay`,
  );
}

/** One snapshot counts once, at however many destinations it is. */
function countOf(snapshots: readonly Pick<KeptSnapshot, "id" | "database">[]): number {
  return new Set(snapshots.map(({ database, id }) => `${database}/${id}`)).size;
}

/** Prints one line for each snapshot that a run removed. */
export function printRemoved(output: Output, removed: readonly RemovedSnapshot[]): void {
  for (const snapshots of Map.groupBy(removed, ({ database, id }) => `${database}/${id}`).values()) {
    const places = snapshots.map(({ destination }) => destination).join(", ");
    output.line(`${output.paint.dim("pruned:")} ${plain(snapshots[0]?.id ?? "")} at ${plain(places)}`);
  }
}
