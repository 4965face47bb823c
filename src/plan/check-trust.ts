import type { TableMark, TrustToken } from "../drivers/change-tracker.ts";

/** Transaction numbers are compared in a circle of 2^32: half of it is "before". */
const HALF_CIRCLE = 1n << 31n;
/** The server counts ages back from its newest number, which goes on while tables are read. */
const READING = 1n << 28n;

/**
 * Says why row headers read now prove nothing about what changed since a base; undefined when they do. The server must be the
 * same, in the same life, and its history must have gone on: a server that was restored, promoted or restarted uses
 * transaction numbers again that mean something else.
 */
export function findDistrust(base: TrustToken | undefined, now: TrustToken | string): string | undefined {
  if (typeof now === "string") return now;
  if (!base) return "the base does not tell the history of its server";
  if (base.systemIdentifier !== now.systemIdentifier) return "the base is of another server";
  if (base.databaseOid !== now.databaseOid) return "the base is of another database";
  if (base.databaseXmin !== undefined && base.databaseXmin !== now.databaseXmin) {
    return "the database was altered, or made again";
  }
  if (base.major !== now.major) return "the server has another major version";
  if (base.timeline !== now.timeline) return "the server is on another timeline: it was promoted or restored";
  if (base.startedAt !== now.startedAt) return "the server was restarted";
  if (BigInt(now.xmin) < BigInt(base.xmin) || BigInt(now.lsn) < BigInt(base.lsn)) return "the server was set back";
  // The youngest row may be as young as the end of the snapshot, which is behind its xmin.
  if (endOf(now) - BigInt(base.xmin) >= HALF_CIRCLE - READING) return "too many transactions have run since";
  return undefined;
}

/** Tells whether no transaction that could write has run in the whole cluster since the base. */
export function isSameInstant(base: TrustToken, now: TrustToken): boolean {
  return base.snapshot === now.snapshot && BigInt(now.xmin) === endOf(now);
}

/** Says why the stored rows of a table cannot be compared with those of now; undefined when they can. */
export function findRewrite(base: TableMark | undefined, now: TableMark | string | undefined): string | undefined {
  if (now === undefined || typeof now === "string") return now ?? "it cannot be tracked";
  if (!base) return "the base does not tell where its rows were";
  if (base.oid !== now.oid) return "it is another table of the same name";
  if (base.filenode !== now.filenode) return "it was truncated or rewritten";
  if (base.digest !== now.digest) return "its definition, or that of one of its types, changed";
  return undefined;
}

/** `xmin:xmax:running` */
function endOf({ snapshot, xmin }: TrustToken): bigint {
  const end = snapshot.split(":")[1];
  return end && /^\d+$/.test(end) ? BigInt(end) : BigInt(xmin) + HALF_CIRCLE;
}
