import { OperationalError } from "../base/errors.ts";
import type { MergeMode, RowMerge } from "../drivers/row-merge.ts";
import { type RestoreUnit, storedColumnsOf } from "./plan-restore.ts";

/**
 * Checks that rows can be told apart by their keys where they go. Fails with kind `refused`: `no-key` where a mode needs a key
 * and there is none; `drift` where the keys are not the same, or something would change what is written.
 */
export function checkMerge(unit: RestoreUnit, merge: Pick<RowMerge, "primaryKey" | "problems">, mode: MergeMode): void {
  const label = `${unit.table.schema}.${unit.table.name}`;
  const [problem] = [...merge.problems, ...keyProblems(unit, merge.primaryKey, label)];
  if (problem !== undefined) {
    throw refused(label, problem, { code: "drift", hint: `Restore the whole table, without --where and --mode.` });
  }
  if (mode === "replace" && unit.parts.some(({ condition }) => condition !== undefined)) {
    throw refused(label, "the snapshot holds only those of its rows that its extension does not make", {
      code: "partly-stored",
      hint: "Use --mode insert-missing or upsert, which delete nothing.",
    });
  }
  if (mode !== "replace" && merge.primaryKey.length === 0) {
    throw refused(label, "it has no primary key to find rows by", {
      code: "no-key",
      hint: "Use --mode replace, which deletes the rows that match and inserts those of the snapshot.",
    });
  }
}

function keyProblems({ parts }: RestoreUnit, key: readonly string[], label: string): readonly string[] {
  return parts.flatMap((part) => {
    const stored = storedColumnsOf(part);
    if (stored.length === 0) return [`${label} has no stored columns`];
    const isSame = part.primaryKey.length === key.length && part.primaryKey.every((name) => key.includes(name));
    if (!isSame) {
      return [
        `the primary key of ${label} is ${describe(key)} there, but ${describe(part.primaryKey)} in the snapshot`,
      ];
    }
    const generated = key.find((name) => !stored.includes(name));
    return generated === undefined ? [] : [`the key column ${generated} of ${label} is generated, so it is not stored`];
  });
}

function describe(key: readonly string[]): string {
  return key.length === 0 ? "none" : `(${key.join(", ")})`;
}

function refused(
  label: string,
  reason: string,
  more: { readonly code: string; readonly hint: string },
): OperationalError {
  return new OperationalError(`cannot restore rows of ${label}: ${reason}`, { kind: "refused", ...more });
}
