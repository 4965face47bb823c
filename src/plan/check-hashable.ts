import type { TableMark, TrustToken } from "../drivers/change-tracker.ts";
import { type FormTable, makeRowForm, type RowForm, storedNames } from "../drivers/row-form.ts";
import type { RowHash } from "../drivers/row-hash.ts";
import type { StoredTable } from "../snapshot/manifest.ts";

export interface HashableTable {
  readonly stored: StoredTable;
  readonly table: FormTable;
  readonly mark: TableMark | string | undefined;
}

/**
 * Tells whether the rows of a table are likely to be where the base has them, so that hashes of rows with their places can show what
 * changed. Whether the answer is true matters for the time only: a row that is elsewhere is a changed row.
 */
export function canBeHashed({ stored, table, mark }: HashableTable): boolean {
  if (stored.format !== "text" || !stored.mark || typeof mark !== "object") return false;
  if (stored.mark.oid !== mark.oid || stored.mark.filenode !== mark.filenode) return false;
  // Rows are stored in the order of the columns: with other columns none could be taken over.
  return columnsOf(stored) === columnsOf(table);
}

/** Tells whether two tokens, of the base and of now, are of one database, or of copies of it. */
export function isSameDatabase(base: TrustToken | undefined, now: TrustToken | string): boolean {
  if (typeof now === "string") return false;
  return !base || (base.systemIdentifier === now.systemIdentifier && base.databaseOid === now.databaseOid);
}

/** The form in which both the server and rowkeep write the rows down. */
export function hashFormOf({ stored, table }: Pick<HashableTable, "stored" | "table">, hash: RowHash): RowForm {
  const form = makeRowForm([stored, table], { hash, rows: 0, majors: [0, 0], isLive: false });
  // NOT NULL may be younger than the base, and a damaged table may contradict it.
  return { ...form, columns: form.columns.map((column) => ({ ...column, mayBeNull: true })) };
}

function columnsOf(table: FormTable): string {
  const stored = new Set(storedNames(table));
  return JSON.stringify(table.columns.filter(({ name }) => stored.has(name)).map(({ name, type }) => [name, type]));
}
