import {
  formatBytes,
  formatCount,
  formatDay,
  formatDuration,
  formatPlural,
  formatRate,
  formatTime,
} from "../format.ts";
import { parseSnapshotId } from "../../snapshot/snapshot-id.ts";
import type { Output } from "../output.ts";
import { plain } from "../text-table.ts";

/** One snapshot as `list --json` gives it. */
export interface ListedSnapshot {
  readonly id: string;
  readonly job: string;
  readonly database: string;
  readonly kind: string;
  readonly createdAt: string;
  /** Missing where the snapshot is encrypted and no key was given. */
  readonly tables?: number | undefined;
  readonly rows?: number | undefined;
  readonly locked?: string | undefined;
  readonly storedBytes: number;
  readonly destinations: readonly string[];
  readonly verifiedAt?: string | undefined;
  readonly drilledAt?: string | undefined;
  readonly consistency?: string | undefined;
  /** The snapshot whose restore made this safety snapshot. */
  readonly safetyOf?: string | undefined;
  readonly pinned: boolean;
  readonly anomalies?: readonly unknown[] | undefined;
  /** Of a locked one. */
  readonly hasAnomalies?: boolean | undefined;
  readonly acknowledgedAt?: string | undefined;
}

/** What an incremental stored again, so that earlier snapshots can go. */
interface CarriedOver {
  readonly bytes: number;
  readonly from: readonly string[];
}

/** One snapshot as `run --json` gives it. */
export interface MadeSnapshot {
  readonly id: string;
  readonly job: string;
  readonly database: string;
  readonly kind: string;
  readonly reason?: string | undefined;
  readonly createdAt: string;
  readonly consistency: string;
  readonly tables: number;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly carriedOver?: CarriedOver | undefined;
  readonly noLongerWanted?:
    | { readonly excluded: readonly string[]; readonly schemaOnly: readonly string[] }
    | undefined;
  readonly durationMs: number;
  readonly destinations: readonly { readonly name: string; readonly status: string; readonly error?: string }[];
}

/** One table as `show --json` gives it. */
export interface ShownTable {
  readonly schema: string;
  readonly name: string;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly method: string;
  readonly reason?: string | undefined;
}

const right = (title: string) => ({ title, align: "right" as const });

/** Prints the snapshots of a job, in the order given. */
export function printSnapshots(output: Output, snapshots: readonly ListedSnapshot[]): void {
  if (snapshots.length === 0) {
    output.line("no snapshots yet");
    return;
  }
  // Nearly always the same for all: then one line tells it, and the table stays narrow.
  const consistencies = new Set(snapshots.flatMap(({ consistency }) => consistency ?? []));
  const mixed = consistencies.size > 1;
  // An id tells both, and two columns less let most tables fit 80 columns.
  const hasOtherKinds = snapshots.some((snapshot) => kindOf(snapshot) !== parseSnapshotId(snapshot.id)?.kind);
  const hasOtherTimes = snapshots.some(({ id, createdAt }) => !isTakenAt(id, createdAt));
  const severalDatabases = new Set(snapshots.map(({ database }) => database)).size > 1;
  output.table(
    [
      { title: "snapshot" },
      ...(severalDatabases ? [{ title: "database" }] : []),
      ...(hasOtherKinds ? [{ title: "kind" }] : []),
      ...(mixed ? [{ title: "consistency" }] : []),
      ...(hasOtherTimes ? [{ title: "time" }] : []),
      right("tables"),
      right("rows"),
      right("size"),
      { title: "verified" },
      { title: "where" },
    ],
    snapshots.map((snapshot) => [
      plain(snapshot.id),
      ...(severalDatabases ? [plain(snapshot.database)] : []),
      ...(hasOtherKinds ? [plain(kindOf(snapshot))] : []),
      ...(mixed ? [plain(snapshot.consistency ?? "locked")] : []),
      ...(hasOtherTimes ? [formatTime(snapshot.createdAt)] : []),
      snapshot.tables === undefined ? "locked" : formatCount(snapshot.tables),
      snapshot.rows === undefined ? "locked" : formatCount(snapshot.rows),
      formatBytes(snapshot.storedBytes),
      proofOf(snapshot),
      plain(snapshot.destinations.join(", ")),
    ]),
  );
  const [consistency] = consistencies;
  if (consistency !== undefined && !mixed) output.line(output.paint.dim(`consistency of all: ${plain(consistency)}`));
}

/** Prints what is in one snapshot. `facts` are lines like `["consistency", "snapshot"]`. */
export function printSnapshot(
  output: Output,
  facts: readonly (readonly [string, string])[],
  tables: readonly ShownTable[],
): void {
  const width = Math.max(...facts.map(([name]) => name.length));
  for (const [name, value] of facts) output.line(`${output.paint.dim(name.padEnd(width))}  ${plain(value)}`);
  output.line();
  output.table(
    [{ title: "table" }, right("rows"), right("raw"), right("stored"), { title: "method" }],
    tables.map((table) => [
      plain(`${table.schema}.${table.name}`),
      formatCount(table.rows),
      formatBytes(table.rawBytes),
      formatBytes(table.storedBytes),
      plain(table.reason ? `${table.method}: ${table.reason}` : table.method),
    ]),
  );
}

/** Renders it as `12 MiB of 20261121T020000Z-full`. */
export function formatCarriedOver({ bytes, from }: CarriedOver): string {
  return `${formatBytes(bytes)} of ${from.join(", ")}`;
}

/** Prints one line for a snapshot that was just made, and one for each destination that has it: warnings tell of the others. */
export function printMadeSnapshot(output: Output, snapshot: MadeSnapshot): void {
  const { paint } = output;
  const stored = snapshot.destinations.filter(({ status }) => status !== "failed");
  output.line(
    `${paint.green("done:")} ${plain(snapshot.id)} of ${plain(snapshot.database)}: ` +
      [
        formatPlural(snapshot.tables, "table"),
        formatPlural(snapshot.rows, "row"),
        `${formatBytes(snapshot.rawBytes)} stored as ${formatBytes(snapshot.storedBytes)}`,
        `${formatDuration(snapshot.durationMs)} (${formatRate(snapshot.rawBytes, snapshot.durationMs)})`,
        `consistency ${snapshot.consistency}`,
      ].join(", "),
  );
  if (snapshot.reason) output.line(`      a full instead of an incremental: ${plain(snapshot.reason)}`);
  const { excluded = [], schemaOnly = [] } = snapshot.noLongerWanted ?? {};
  if (excluded.length > 0) output.line(`      no longer backed up, as the job says: ${plain(excluded.join(", "))}`);
  if (schemaOnly.length > 0) output.line(`      without rows now, as the job says: ${plain(schemaOnly.join(", "))}`);
  if (snapshot.carriedOver) output.line(`      carried over: ${plain(formatCarriedOver(snapshot.carriedOver))}`);
  for (const { name } of stored) output.line(`      at ${plain(name)}`);
}

function kindOf({ kind, safetyOf }: ListedSnapshot): string {
  return safetyOf === undefined ? kind : "safety";
}

/** Ids tell whole seconds. */
function isTakenAt(id: string, createdAt: string): boolean {
  const takenAt = parseSnapshotId(id)?.takenAt;
  return takenAt !== undefined && formatTime(takenAt) === formatTime(createdAt);
}

function proofOf(snapshot: ListedSnapshot): string {
  const proofs = [
    snapshot.drilledAt ? `drilled ${formatDay(snapshot.drilledAt)}` : undefined,
    snapshot.verifiedAt ? formatDay(snapshot.verifiedAt) : undefined,
    snapshot.pinned ? "pinned" : undefined,
    (snapshot.anomalies?.length || snapshot.hasAnomalies) && !snapshot.acknowledgedAt ? "tables lost rows" : undefined,
  ];
  return proofs.filter((proof) => proof !== undefined).join(", ") || "-";
}
