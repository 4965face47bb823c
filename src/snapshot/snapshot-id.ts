import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import type { SnapshotKind } from "./manifest.ts";

const PATTERN =
  /^([1-9]\d{3})(0[1-9]|1[0-2])(\d\d)T([01]\d|2[0-3])([0-5]\d)([0-5]\d)Z-(full|incremental)(?:-([2-9]|[1-9]\d{1,5}))?$/;

export interface SnapshotId {
  readonly id: string;
  /** The instant of the snapshot, cut to the second. */
  readonly takenAt: Date;
  readonly kind: SnapshotKind;
  /** 1, or more where several snapshots were taken in one second. */
  readonly ordinal: number;
}

/** Renders `20261121T020000Z-full`, with `-2`, `-3` … for further ones of the same second, whatever their kind. */
export function renderSnapshotId(takenAt: Date, kind: SnapshotKind, ordinal = 1): string {
  return `${stampOf(takenAt)}-${kind}${ordinal > 1 ? `-${ordinal}` : ""}`;
}

/** Renders a time as an id begins, `20261121T020000Z`. */
export function stampOf(takenAt: Date): string {
  return takenAt
    .toISOString()
    .replace(/\.\d+Z$/, "Z")
    .replaceAll(/[-:]/g, "");
}

/** Reads an id; undefined for any other text, also for a day that no calendar has. */
export function parseSnapshotId(text: string): SnapshotId | undefined {
  const match = PATTERN.exec(text);
  if (!match) return undefined;
  const [year = 0, month = 0, day = 0, hour, minute, second] = match.slice(1, 7).map(Number);
  const takenAt = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  const kind = match[7] as SnapshotKind;
  const ordinal = match[8] ? Number(match[8]) : 1;
  // February 30 would be read as March 2.
  if (takenAt.getUTCDate() !== day) return undefined;
  return { id: text, takenAt, kind, ordinal };
}

/** Orders by time, then by ordinal: negative when `left` is older. */
export function compareSnapshotIds(left: SnapshotId, right: SnapshotId): number {
  return left.takenAt.getTime() - right.takenAt.getTime() || left.ordinal - right.ordinal;
}

/** Orders texts that are ids in the same way, most of them without reading them. */
export function compareIdTexts(left: string, right: string): number {
  const [leftStamp, rightStamp] = [left.slice(0, STAMP_LENGTH), right.slice(0, STAMP_LENGTH)];
  if (leftStamp !== rightStamp) return leftStamp < rightStamp ? -1 : 1;
  const [leftId, rightId] = [parseSnapshotId(left), parseSnapshotId(right)];
  return leftId && rightId ? compareSnapshotIds(leftId, rightId) : 0;
}

const STAMP_LENGTH = "20261121T020000Z".length;

export interface MakeSnapshotIdOptions {
  readonly destinations: readonly Destination[];
  readonly prefix: string;
  readonly takenAt: Date;
  readonly kind: SnapshotKind;
  /** Gives ids that begin like this and that other databases of the job have. */
  readonly otherIds?: ((start: string) => readonly string[]) | undefined;
  readonly signal: AbortSignal;
}

/**
 * Makes an id that comes behind those of these destinations, and behind `otherIds`: of two snapshots of one second the later
 * one has the higher ordinal. A destination that cannot be listed has no say.
 */
export async function makeSnapshotId(options: MakeSnapshotIdOptions): Promise<string> {
  const highest = await Promise.all(options.destinations.map((destination) => findHighest(destination, options)));
  const others = (options.otherIds?.(stampOf(options.takenAt)) ?? []).map((id) => parseSnapshotId(id)?.ordinal ?? 0);
  return renderSnapshotId(options.takenAt, options.kind, Math.max(0, ...highest, ...others) + 1);
}

/** Gives the highest ordinal of that second; 0 when there is none. */
async function findHighest(destination: Destination, options: MakeSnapshotIdOptions): Promise<number> {
  const { prefix, takenAt, signal } = options;
  let highest = 0;
  try {
    for await (const { key } of destination.list(`${prefix}/${stampOf(takenAt)}`, { signal })) {
      const id = parseSnapshotId(key.slice(prefix.length + 1).split("/", 1)[0] ?? "");
      if (id) highest = Math.max(highest, id.ordinal);
    }
  } catch (error) {
    // It will fail alone when the first volume is stored, with a message of its own.
    if (!(error instanceof OperationalError)) throw error;
  }
  return highest;
}
