import { archiveError } from "../archive/archive-error.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { MAX_MARKS_BYTES, parseMarks } from "./marks-text.ts";
import { collectBytes } from "./object-bytes.ts";
import { isSealIntact } from "./sealed-json.ts";
import type { Marks } from "./snapshot-summary.ts";

export interface MarksPlace {
  readonly destination: Destination;
  readonly key: string;
  readonly signal: AbortSignal;
}

/** Reads marks to show them. What is missing or, read twice, unreadable is none. Fails with kind `destination`. */
export async function readMarks(place: MarksPlace): Promise<Marks> {
  return (await readTwice(place)).marks ?? {};
}

/**
 * Reads marks to replace them. Damaged ones count as none only when that is proven: the same bytes came twice, and their
 * seal is broken. Fails with kind `archive` (`damaged`) when they may be good and were only misread, or are not ours to
 * judge; with kind `destination`.
 */
export async function readMarksToReplace(place: MarksPlace): Promise<Marks> {
  const { marks, isDamaged } = await readTwice(place);
  if (marks) return marks;
  if (isDamaged) return {};
  throw archiveError(`cannot change the marks ${place.destination.name}/${place.key}: they cannot be read`, "damaged", {
    hint: "Check memory, cables and network; remove this file when it stays unreadable.",
  });
}

interface MarksRead {
  readonly marks?: Marks | undefined;
  /** What was read instead of marks, when it was not too much. */
  readonly bytes?: Buffer | undefined;
}

async function readTwice(place: MarksPlace): Promise<MarksRead & { readonly isDamaged: boolean }> {
  const first = await readOnce(place);
  if (first.marks) return { ...first, isDamaged: false };
  const { marks, bytes } = await readOnce(place);
  const isDamaged = bytes !== undefined && first.bytes?.equals(bytes) === true && !isSealIntact(bytes);
  return { marks, isDamaged };
}

async function readOnce({ destination, key, signal }: MarksPlace): Promise<MarksRead> {
  let bytes: Buffer | undefined;
  try {
    bytes = await collectBytes(destination.get(key, { signal }), MAX_MARKS_BYTES, key);
    return { marks: parseMarks(bytes) };
  } catch (error) {
    if (codeOf(error) === "not-found") return { marks: {} };
    if (error instanceof OperationalError && error.kind === "archive") return { bytes };
    throw error;
  }
}
