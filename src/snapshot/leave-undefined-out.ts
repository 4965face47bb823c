import type { Manifest } from "./manifest.ts";

type Content = Pick<Manifest, "definitions" | "tables" | "sequences">;

export interface DefinedContent<T extends Content> {
  /** The content without the tables that no definition makes, and their sequences. */
  readonly content: T;
  /** One sentence for each table whose rows are left out. */
  readonly warnings: readonly string[];
}

/** Gives the part of a snapshot that an empty database can hold: what a table needs may not be captured, its rows are all the same. */
export function leaveUndefinedOut<T extends Content>(content: T): DefinedContent<T> {
  const made = new Set(content.definitions.filter(({ kind }) => kind === "table").map(keyOf));
  const lost = content.tables.filter((table) => !made.has(keyOf(table)));
  if (lost.length === 0) return { content, warnings: [] };
  const names = new Set(lost.map(keyOf));
  const tables = content.tables.filter((table) => made.has(keyOf(table)));
  const sequences = content.sequences.filter(
    ({ ownedBy }) => !ownedBy || !names.has(keyOf({ schema: ownedBy.schema, name: ownedBy.table })),
  );
  return {
    content: { ...content, tables, sequences },
    warnings: lost.map(
      ({ schema, name }) => `rows of ${schema}.${name} are not restored: the snapshot has no definition of it`,
    ),
  };
}

function keyOf({ schema, name }: { readonly schema?: string | undefined; readonly name: string }): string {
  return JSON.stringify([schema, name]);
}
