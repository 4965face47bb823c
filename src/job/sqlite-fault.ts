import { codeOf, messageOf, OperationalError } from "../base/errors.ts";

/** What a failure of SQLite tells of its file; `unusable`: the file may be good, and the disk or the rights are at fault. */
export type SqliteFault = "torn" | "busy" | "unusable";

/** https://www.sqlite.org/rescode.html: ERROR (of another layout), CORRUPT, NOTADB, IOERR_READ, IOERR_SHORT_READ. */
const TORN: ReadonlySet<number> = new Set([1, 11, 26, 266, 522]);
/** BUSY, LOCKED. */
const BUSY: ReadonlySet<number> = new Set([5, 6]);

/** Undefined for an error that is none of SQLite's. */
export function sqliteFaultOf(error: unknown): SqliteFault | undefined {
  if (codeOf(error) !== "ERR_SQLITE_ERROR") return undefined;
  const { errcode = 0 } = error as { readonly errcode?: number };
  if (TORN.has(errcode)) return "torn";
  return BUSY.has(errcode & 0xff) ? "busy" : "unusable";
}

/** Makes the error of a file of the home that cannot be used now, and is left as it is. */
export function unusableFile(path: string, cause: unknown): OperationalError {
  return new OperationalError(`cannot use ${path}: ${messageOf(cause)}`, {
    kind: "usage",
    code: "home",
    hint: "Free space there and see to its rights, or choose another folder with --home or ROWKEEP_HOME.",
    cause,
  });
}
