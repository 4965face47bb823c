import { OperationalError } from "../base/errors.ts";

/** A value as it was written; `at` is the place of its first character, from 1. */
export interface Literal {
  readonly type: "text" | "number" | "boolean";
  readonly text: string;
  readonly at: number;
}

export interface ColumnMention {
  readonly name: string;
  readonly at: number;
}

export type Comparison = "=" | "<>" | "<" | "<=" | ">" | ">=";

/** What rows must fulfil, as it was written: columns and types are not looked at yet. */
export type RowCondition =
  | { readonly kind: "and" | "or"; readonly parts: readonly RowCondition[] }
  | { readonly kind: "not"; readonly part: RowCondition }
  | {
      readonly kind: "compare";
      readonly column: ColumnMention;
      readonly operator: Comparison;
      readonly value: Literal;
    }
  | { readonly kind: "in"; readonly column: ColumnMention; readonly values: readonly Literal[] }
  | { readonly kind: "like"; readonly column: ColumnMention; readonly pattern: Literal }
  | { readonly kind: "null"; readonly column: ColumnMention };

interface Token {
  readonly type: "word" | "name" | "text" | "number" | "symbol" | "end";
  readonly text: string;
  readonly at: number;
}

/** Deeper ones are no question that a person asks, and would end in the stack of the parser. */
const MOST_NESTED = 100;
const COMPARISONS: ReadonlySet<string> = new Set(["=", "<>", "!=", "<", "<=", ">", ">="]);
const KEYWORDS: ReadonlySet<string> = new Set([
  "and",
  "or",
  "not",
  "in",
  "between",
  "like",
  "is",
  "null",
  "true",
  "false",
]);
const SPACE = /\s*/y;
const TOKENS: readonly (readonly [Token["type"], RegExp])[] = [
  ["word", /[\p{L}_][\p{L}\p{N}_$]*/uy],
  ["name", /"(?:[^"]|"")+"/y],
  ["text", /'(?:[^']|'')*'/y],
  ["number", /[-+]?\d+(?:\.\d+)?/y],
  ["symbol", /<>|!=|<=|>=|[=<>(),]/y],
];

/**
 * Parses the language of `--where` (docs/cli.md): comparisons of a column with literals, `in`, `between`, `like`, `is null`,
 * joined by `and`, `or`, `not` and parentheses. It is never sent to a server.
 * Fails with kind `usage`, `invalid-where`, and says at which character.
 */
export function parseCondition(text: string): RowCondition {
  const parser = new Parser([...tokensOf(text)]);
  const condition = parser.parseAny();
  parser.expectEnd();
  return condition;
}

/** Makes the error for a place of the condition. */
export function invalidWhere(reason: string, at: number, hint?: string): OperationalError {
  return new OperationalError(`cannot read --where: ${reason} at character ${at}`, {
    kind: "usage",
    code: "invalid-where",
    hint: hint ?? `Write conditions like id in (1, 2) and (name like 'A%' or paid is null).`,
  });
}

function* tokensOf(text: string): Generator<Token, void> {
  let place = 0;
  for (;;) {
    SPACE.lastIndex = place;
    SPACE.exec(text);
    place = SPACE.lastIndex;
    if (place >= text.length) break;
    const token = tokenAt(text, place);
    if (!token) throw invalidWhere(text[place] === "'" ? "a text has no end" : "something that is no word", place + 1);
    yield { type: token.type, text: meaningOf(token), at: place + 1 };
    place += token.text.length;
  }
  yield { type: "end", text: "", at: text.length + 1 };
}

function tokenAt(text: string, place: number): Pick<Token, "type" | "text"> | undefined {
  for (const [type, pattern] of TOKENS) {
    pattern.lastIndex = place;
    const match = pattern.exec(text);
    if (match) return { type, text: match[0] };
  }
  return undefined;
}

function meaningOf({ type, text }: Pick<Token, "type" | "text">): string {
  if (type === "name") return text.slice(1, -1).replaceAll('""', '"');
  if (type === "text") return text.slice(1, -1).replaceAll("''", "'");
  return text;
}

class Parser {
  readonly #tokens: readonly Token[];
  #place = 0;
  #depth = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  get #next(): Token {
    return this.#tokens[Math.min(this.#place, this.#tokens.length - 1)] as Token;
  }

  expectEnd(): void {
    if (this.#next.type !== "end") throw this.#expected("and, or, or the end");
  }

  parseAny(): RowCondition {
    const parts = [this.#parseAll()];
    while (this.#take("or")) parts.push(this.#parseAll());
    return parts.length === 1 ? (parts[0] as RowCondition) : { kind: "or", parts };
  }

  #parseAll(): RowCondition {
    const parts = [this.#parseOne()];
    while (this.#take("and")) parts.push(this.#parseOne());
    return parts.length === 1 ? (parts[0] as RowCondition) : { kind: "and", parts };
  }

  #parseOne(): RowCondition {
    if (++this.#depth > MOST_NESTED) throw invalidWhere("too much is nested", this.#next.at);
    try {
      if (this.#take("not")) return { kind: "not", part: this.#parseOne() };
      if (!this.#takeSymbol("(")) return this.#parsePredicate();
      const condition = this.parseAny();
      if (!this.#takeSymbol(")")) throw this.#expected("and, or, or a closing parenthesis");
      return condition;
    } finally {
      this.#depth -= 1;
    }
  }

  #parsePredicate(): RowCondition {
    const column = this.#parseColumn();
    const { type, text } = this.#next;
    if (type === "symbol" && COMPARISONS.has(text)) {
      this.#place += 1;
      const operator = (text === "!=" ? "<>" : text) as Comparison;
      return { kind: "compare", column, operator, value: this.#parseLiteral() };
    }
    if (this.#take("is")) {
      const isNegated = this.#take("not");
      if (!this.#take("null")) throw this.#expected("null");
      return negated(isNegated, { kind: "null", column });
    }
    const isNegated = this.#take("not");
    return negated(isNegated, this.#parseSet(column));
  }

  #parseSet(column: ColumnMention): RowCondition {
    if (this.#take("like")) return { kind: "like", column, pattern: this.#parseLiteral() };
    if (this.#take("in")) return { kind: "in", column, values: this.#parseList() };
    if (!this.#take("between")) throw this.#expected("=, <>, <, <=, >, >=, in, between, like or is null");
    const low = this.#parseLiteral();
    if (!this.#take("and")) throw this.#expected("and");
    const high = this.#parseLiteral();
    return {
      kind: "and",
      parts: [
        { kind: "compare", column, operator: ">=", value: low },
        { kind: "compare", column, operator: "<=", value: high },
      ],
    };
  }

  #parseColumn(): ColumnMention {
    const { type, text, at } = this.#next;
    if (type !== "name" && (type !== "word" || isKeyword(text))) throw this.#expected("a column");
    this.#place += 1;
    return { name: text, at };
  }

  #parseList(): readonly Literal[] {
    if (!this.#takeSymbol("(")) throw this.#expected("an opening parenthesis");
    const values = [this.#parseLiteral()];
    while (this.#takeSymbol(",")) values.push(this.#parseLiteral());
    if (!this.#takeSymbol(")")) throw this.#expected("a comma or a closing parenthesis");
    return values;
  }

  #parseLiteral(): Literal {
    const { type, text, at } = this.#next;
    const word = type === "word" ? text.toLowerCase() : "";
    if (word === "null") throw invalidWhere("null is equal to nothing", at, "Write is null or is not null.");
    this.#place += 1;
    if (type === "text" || type === "number") return { type, text, at };
    if (word === "true" || word === "false") return { type: "boolean", text: word, at };
    this.#place -= 1;
    throw this.#expected("a number, a 'text' in single quotes, true or false");
  }

  #take(keyword: string): boolean {
    return this.#accept(({ type, text }) => type === "word" && text.toLowerCase() === keyword);
  }

  #takeSymbol(symbol: string): boolean {
    return this.#accept(({ type, text }) => type === "symbol" && text === symbol);
  }

  #accept(isWanted: (token: Token) => boolean): boolean {
    if (!isWanted(this.#next)) return false;
    this.#place += 1;
    return true;
  }

  #expected(what: string): OperationalError {
    const { type, at } = this.#next;
    return invalidWhere(type === "end" ? `it ends where ${what} is missing` : `${what} is missing`, at);
  }
}

function negated(isNegated: boolean, part: RowCondition): RowCondition {
  return isNegated ? { kind: "not", part } : part;
}

function isKeyword(word: string): boolean {
  return KEYWORDS.has(word.toLowerCase());
}
