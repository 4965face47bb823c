import type { Manifest } from "./manifest.ts";

/**
 * The encoding of the rows where that is the database's own (`WIN1252`, `EUC_JP`), since some of its text has no equivalent in UTF-8.
 * Undefined: the rows are UTF-8, or bytes of no encoding (SQL_ASCII).
 */
export function ownEncodingOf({ settings }: Pick<Manifest, "settings">): string | undefined {
  const encoding = settings["client_encoding"];
  return encoding === "UTF8" || encoding === "SQL_ASCII" ? undefined : encoding;
}
