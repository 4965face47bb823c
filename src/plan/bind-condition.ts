import { nearestName } from "../base/nearest-name.ts";
import type { Column } from "../drivers/driver.ts";
import { type ColumnMention, type Comparison, invalidWhere, type Literal, type RowCondition } from "./row-condition.ts";
import { bytesOf, isTime, kindOf, type ValueKind } from "./value-kinds.ts";

/** The values of the condition's columns in one row: COPY's text, unescaped, one character a byte. */
export type RowValues = readonly (string | null)[];

/** A condition that knows the columns of one table. */
export interface BoundCondition {
  /** The columns whose values it looks at. */
  readonly columns: readonly string[];
  /** Whether a row is meant. What is neither true nor false, because of a NULL, is not. */
  matches(values: RowValues): boolean;
}

export interface BindOptions {
  readonly columns: readonly Pick<Column, "name" | "type" | "generated">[];
  /** The session settings with which the values were written down. */
  readonly settings: Readonly<Record<string, string>>;
}

/** True, false, or undefined where SQL says unknown. */
type Verdict = (values: RowValues) => boolean | undefined;

/**
 * Checks a condition against the columns of a table. Names are compared letter by letter.
 * Fails with kind `usage`, `invalid-where`: unknown column, a value or comparison that its type does not have.
 */
export function bindCondition(condition: RowCondition, options: BindOptions): BoundCondition {
  const binder = new Binder(options);
  const verdict = binder.bind(condition);
  return { columns: binder.names, matches: (values) => verdict(values) === true };
}

class Binder {
  readonly names: string[] = [];
  readonly #options: BindOptions;

  constructor(options: BindOptions) {
    this.#options = options;
  }

  bind(condition: RowCondition): Verdict {
    switch (condition.kind) {
      case "and":
        return every(condition.parts.map((part) => this.bind(part)));
      case "or": {
        // De Morgan: true when not all are not true.
        const none = every(condition.parts.map((part) => not(this.bind(part))));
        return not(none);
      }
      case "not":
        return not(this.bind(condition.part));
      case "null": {
        const { index } = this.#column(condition.column);
        return (values) => values[index] === null;
      }
      case "compare":
        return this.#bindComparison(condition.column, condition.operator, condition.value);
      case "in":
        return this.#bindList(condition.column, condition.values);
      case "like":
        return this.#bindLike(condition.column, condition.pattern);
    }
  }

  #bindComparison(column: ColumnMention, operator: Comparison, value: Literal): Verdict {
    const { index, kind, type } = this.#column(column);
    const wanted = kind.markOf(value);
    if (operator === "=") return tested(index, (text) => kind.mark(text) === wanted);
    if (operator === "<>") return tested(index, (text) => kind.mark(text) !== wanted);
    const { compare } = kind;
    if (!compare) {
      throw invalidWhere(`values of type ${type} are only equal or not here`, column.at, "Compare with =, <> or in.");
    }
    const fits = ORDERS[operator];
    return tested(index, (text) => fits(compare(kind.mark(text), wanted)));
  }

  #bindList(column: ColumnMention, values: readonly Literal[]): Verdict {
    const { index, kind } = this.#column(column);
    const wanted = new Set(values.map((value) => kind.markOf(value)));
    return tested(index, (text) => wanted.has(kind.mark(text)));
  }

  #bindLike(column: ColumnMention, pattern: Literal): Verdict {
    const { index, kind, type } = this.#column(column);
    if (!kind.isText) throw invalidWhere(`like is for text, and the column is ${type}`, column.at);
    if (pattern.type !== "text") throw invalidWhere("like wants a 'text' in single quotes", pattern.at);
    const steps = stepsOf(pattern);
    return tested(index, (text) => isLike(text, steps));
  }

  #column({ name, at }: ColumnMention): { readonly index: number; readonly kind: ValueKind; readonly type: string } {
    const { columns, settings } = this.#options;
    const column = columns.find((one) => one.name === name);
    const encoding = settings["client_encoding"] ?? "UTF8";
    if (encoding !== "UTF8" && encoding !== "SQL_ASCII") {
      throw invalidWhere(`text of the snapshot is kept in ${encoding}, not in UTF-8`, at);
    }
    if (!column) {
      const near = nearestName(
        name,
        columns.map((one) => one.name),
      );
      throw invalidWhere(`no column is called ${name}`, at, near === undefined ? undefined : `Did you mean ${near}?`);
    }
    if (column.generated) {
      throw invalidWhere(`the column ${name} is generated, so its values are not stored`, at);
    }
    if (isTime(column.type) && !(/^ISO\b/i.test(settings["datestyle"] ?? "") && settings["timezone"] === "UTC")) {
      throw invalidWhere(`the times of ${name} are not stored in ISO form in UTC`, at);
    }
    const known = this.names.indexOf(name);
    const index = known >= 0 ? known : this.names.push(name) - 1;
    return { index, kind: kindOf(column.type), type: column.type };
  }
}

const ORDERS: Readonly<Record<Exclude<Comparison, "=" | "<>">, (order: number) => boolean>> = {
  "<": (order) => order < 0,
  "<=": (order) => order <= 0,
  ">": (order) => order > 0,
  ">=": (order) => order >= 0,
};

/** A test of one value; of NULL nothing is known. */
function tested(index: number, test: (text: string) => boolean): Verdict {
  return (values) => {
    const text = values[index];
    return text === null || text === undefined ? undefined : test(text);
  };
}

function not(verdict: Verdict): Verdict {
  return (values) => {
    const known = verdict(values);
    return known === undefined ? undefined : !known;
  };
}

function every(verdicts: readonly Verdict[]): Verdict {
  return (values) => {
    let all: boolean | undefined = true;
    for (const verdict of verdicts) {
      const known = verdict(values);
      if (known === false) return false;
      if (known === undefined) all = undefined;
    }
    return all;
  };
}

/** A byte that must be there, any one character, or any number of them. */
type Step = number | "one" | "many";

function stepsOf({ text, at }: Literal): readonly Step[] {
  const steps: Step[] = [];
  const bytes = bytesOf(text);
  for (let place = 0; place < bytes.length; place += 1) {
    const letter = bytes[place];
    if (letter === "%") steps.push("many");
    else if (letter === "_") steps.push("one");
    else {
      if (letter === "\\" && ++place === bytes.length) {
        throw invalidWhere("the pattern ends with a backslash", at, "Write \\\\ for a backslash itself.");
      }
      steps.push(bytes.charCodeAt(place));
    }
  }
  return steps;
}

/** Only the last `many` is ever widened: no pattern takes longer than text times pattern. */
function isLike(text: string, steps: readonly Step[]): boolean {
  let [at, step] = [0, 0];
  let retry: { at: number; readonly step: number } | undefined;
  for (;;) {
    const wanted = steps[step];
    if (wanted === "many") {
      step += 1;
      retry = { at, step };
      continue;
    }
    if (wanted === undefined ? at === text.length : at < text.length && isStep(text, at, wanted)) {
      if (wanted === undefined) return true;
      at = wanted === "one" ? nextCharacter(text, at) : at + 1;
      step += 1;
      continue;
    }
    if (!retry || retry.at >= text.length) return false;
    retry = { at: nextCharacter(text, retry.at), step: retry.step };
    ({ at, step } = retry);
  }
}

function isStep(text: string, at: number, wanted: number | "one"): boolean {
  return wanted === "one" || text.charCodeAt(at) === wanted;
}

/** Behind the character of UTF-8 that begins here. */
function nextCharacter(text: string, at: number): number {
  let next = at + 1;
  while (next < text.length && (text.charCodeAt(next) & 0xc0) === 0x80) next += 1;
  return next;
}
