import { archiveError } from "../archive/archive-error.ts";
import { checkJson } from "./check-json.ts";
import { isSealIntact, sealJson } from "./sealed-json.ts";
import { optional, record, text } from "./shape.ts";
import type { Marks } from "./snapshot-summary.ts";

/** Name of the marks below the snapshot's folder. */
export const MARKS_NAME = "verified.json";
/** Its presence below the snapshot's folder says that the snapshot is pinned: what protects must not depend on content. */
export const PIN_NAME = "pinned.json";
export const MAX_MARKS_BYTES = 64 * 1024;

const INSTANT = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?Z$/;
const instant = optional(text(40, INSTANT));
const marksShape = record({
  verifiedAt: instant,
  damagedAt: instant,
  drilledAt: instant,
  undoneAt: instant,
  undoingBy: optional(text(20, /^\d+$/)),
  passedAt: instant,
  acknowledgedAt: instant,
});

export function renderMarks(marks: Marks): Buffer {
  return sealJson(marks);
}

export function renderPin(pinnedAt: string): Buffer {
  return sealJson({ pinnedAt });
}

/** Reads marks from bytes that may be hostile; fails with kind `archive`. */
export function parseMarks(bytes: Buffer): Marks {
  const json = bytes.toString("utf8");
  let value: unknown;
  try {
    value = isSealIntact(bytes) && checkJson(json, 4) === undefined ? JSON.parse(json) : undefined;
  } catch {
    value = undefined;
  }
  if (marksShape(value) !== undefined) throw archiveError("cannot read the marks of a snapshot", "invalid-manifest");
  const { verifiedAt, damagedAt, drilledAt, undoneAt, undoingBy, passedAt, acknowledgedAt } = value as Marks;
  return {
    ...(verifiedAt ? { verifiedAt } : {}),
    ...(damagedAt ? { damagedAt } : {}),
    ...(drilledAt ? { drilledAt } : {}),
    ...(undoneAt ? { undoneAt } : {}),
    ...(undoingBy ? { undoingBy } : {}),
    ...(passedAt ? { passedAt } : {}),
    ...(acknowledgedAt ? { acknowledgedAt } : {}),
  };
}
