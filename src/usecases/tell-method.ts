import { formatCount, formatPlural } from "../base/counts.ts";
import type { StoredTable } from "../snapshot/manifest.ts";

/** How the rows of a table were found. */
export interface Way {
  /** Why its headers prove nothing. */
  readonly reason?: string | undefined;
  /** Rows are compared with those of the base. */
  readonly isDelta: boolean;
  /** Compared by hashes, not by headers. */
  readonly isHashed?: boolean | undefined;
  /** Nothing differs from the base, so far. */
  readonly isUnchanged: boolean;
}

/** Tells people how a table was stored and, where it was not compared by its headers, why and what came of it. */
export function tellMethod(
  { reason, isDelta, isHashed, isUnchanged }: Way,
  { segments }: Pick<StoredTable, "segments">,
  base: StoredTable | undefined,
): Pick<StoredTable, "method" | "reason"> {
  const chunks = segments.flatMap((segment) => segment.chunks);
  const own = chunks.filter(({ snapshot }) => snapshot === undefined).length;
  if (isDelta) {
    const method = isUnchanged ? "unchanged" : own < chunks.length ? "delta" : "full";
    if (isHashed) return { method, reason: `${reason}; its rows were compared by hashes` };
    return { method, reason: method === "full" ? "most of it changed" : undefined };
  }
  if (reason === undefined || !base || chunks.length === 0) return { method: "full", reason };
  return {
    method: "full",
    reason: `${reason}; it was read again, and ${formatCount(own)} of its ${formatPlural(chunks.length, "chunk")} changed`,
  };
}
