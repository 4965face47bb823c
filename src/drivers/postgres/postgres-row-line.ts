import { type FormColumn, GROUP_COLUMNS, type RowForm } from "../row-form.ts";
import { quoteIdentifier, quoteLiteral } from "./postgres-quote.ts";

/** Few enough that one test of a group is cheap, and what it saves is not. */
const NULLS_A_TEST = 6;

/** The line of `row-form.ts` for a row of `t`; `before` stands in front of it. */
export function lineOf(form: RowForm, before: readonly string[] = []): string {
  const joined = (parts: readonly string[]) =>
    `pg_catalog.concat_ws(${[quoteLiteral(form.separator), ...parts].join(", ")})`;
  const values = groupsOf(
    form.columns.map(({ name, sentBy }) => {
      const column = `t.${quoteIdentifier(name)}`;
      return sentBy ? `pg_catalog.${sentBy}(${column})` : column;
    }),
    GROUP_COLUMNS,
  );
  const head = [...before, ...headOf(form, joined)];
  if (values.length === 0) return `''::text`;
  return joined(values.length === 1 ? [...head, ...(values[0] ?? [])] : [...head, ...values.map(joined)]);
}

/** The numbers of the NULLs and the dot; tested in groups, because mostly nothing is NULL. */
function headOf(form: RowForm, joined: (parts: readonly string[]) => string): readonly string[] {
  const nullable = form.columns.flatMap((column, index) => (column.mayBeNull ? [{ column, index }] : []));
  if (nullable.length === 0) return [];
  const tests = groupsOf(nullable, NULLS_A_TEST).map((group) => {
    const marks = group.map(({ column, index }) => `case when ${isNull(column)} then '~${index}' end`);
    return `case when ${group.map(({ column }) => isNull(column)).join(" or ")} then ${joined(marks)} end`;
  });
  const marks = tests.length > 10 ? groupsOf(tests, GROUP_COLUMNS).map((some) => `nullif(${joined(some)}, '')`) : tests;
  return [...marks, "'.'"];
}

/** What type output gives, as COPY does: a cast to text would print booleans, addresses and characters otherwise. */
export function textOf(name: string): string {
  return `pg_catalog.concat(t.${quoteIdentifier(name)})`;
}

export function isNull(column: FormColumn): string {
  const name = `t.${quoteIdentifier(column.name)}`;
  return column.isComposite ? `pg_catalog.num_nulls(${name}) = 1` : `${name} is null`;
}

/** Cuts a list into parts of at most `size`. */
export function groupsOf<T>(items: readonly T[], size: number): readonly (readonly T[])[] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}
