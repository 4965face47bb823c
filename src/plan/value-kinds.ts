import { invalidWhere, type Literal } from "./row-condition.ts";

/**
 * How the values of one type are compared. A value is the text that COPY has for it, one character a byte; its mark is the
 * same for equal values, and only for them.
 */
export interface ValueKind {
  mark(value: string): string;
  markOf(literal: Literal): string;
  /** Orders two marks; undefined: values of the type are only equal or not. */
  readonly compare?: ((one: string, other: string) => number) | undefined;
  /** Whether `like` means anything. */
  readonly isText: boolean;
}

const DECIMALS: ReadonlySet<string> = new Set(["smallint", "integer", "bigint", "oid", "numeric"]);
const TEXTS: ReadonlySet<string> = new Set(["text", "character varying", "name"]);
const TIMES: ReadonlySet<string> = new Set(["date", "timestamp without time zone", "timestamp with time zone"]);

/** Gives the kind of a type as PostgreSQL prints it, with or without modifiers. */
export function kindOf(type: string): ValueKind {
  const base = type.replace(/\(\d+(?:,-?\d+)?\)/, "");
  if (DECIMALS.has(base)) return decimals;
  if (TEXTS.has(base)) return texts;
  if (base === "character") return paddedTexts;
  if (TIMES.has(base)) return timesOf(base);
  if (base === "boolean") return booleans;
  return base === "uuid" ? uuids : others;
}

/** Whether the order of values depends on the settings with which a type was written down. */
export function isTime(type: string): boolean {
  return TIMES.has(type.replace(/\(\d+\)/, ""));
}

/** Gives UTF-8 text as one character a byte: their order is that of the bytes. */
export function bytesOf(text: string): string {
  return Buffer.from(text).toString("latin1");
}

function compareText(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

function textOf(literal: Literal): string {
  if (literal.type === "text") return bytesOf(literal.text);
  throw invalidWhere("the column holds text, and this is none", literal.at, "Put the value into single quotes.");
}

const texts: ValueKind = { mark: (value) => value, markOf: textOf, compare: compareText, isText: true };

/** Spaces at the end of `character(n)` mean nothing to the server. */
const paddedTexts: ValueKind = {
  mark: withoutPadding,
  markOf: (literal) => withoutPadding(textOf(literal)),
  compare: compareText,
  isText: true,
};

function withoutPadding(value: string): string {
  let end = value.length;
  while (value[end - 1] === " ") end -= 1;
  return value.slice(0, end);
}

const others: ValueKind = { mark: (value) => value, markOf: ({ text }) => bytesOf(text), isText: false };

const booleans: ValueKind = {
  mark: (value) => value,
  markOf: ({ type, text, at }) => {
    if (type === "number" || !/^(?:t|f|true|false)$/.test(text)) {
      throw invalidWhere("the column holds true or false", at, "Write true or false.");
    }
    return text.slice(0, 1);
  },
  isText: false,
};

const uuids: ValueKind = {
  mark: (value) => value,
  markOf: ({ text, at }) => {
    if (/^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/i.test(text)) return text.toLowerCase();
    throw invalidWhere("the column holds a uuid, and this is none", at);
  },
  isText: false,
};

/** Numbers of any length as `-12.5`: no zeros that mean nothing, so that text is equal where values are. */
const decimals: ValueKind = {
  mark: (value) => markDecimal(value) ?? unreadable(),
  markOf: ({ text, at }) => {
    const mark = markDecimal(text);
    if (mark === undefined) throw invalidWhere("the column holds a number, and this is none", at);
    return mark;
  },
  compare: compareDecimals,
  isText: false,
};

function markDecimal(text: string): string | undefined {
  if (text === "NaN" || text === "Infinity" || text === "-Infinity") return text;
  const match = /^([-+]?)(\d+)(?:\.(\d+))?$/.exec(text);
  if (!match) return undefined;
  const [, sign, digits = "", decimals = ""] = match;
  const whole = digits.replace(/^0+/, "");
  const fraction = withoutZeros(decimals);
  if (whole === "" && fraction === "") return "0";
  return `${sign === "-" ? "-" : ""}${whole || "0"}${fraction && `.${fraction}`}`;
}

/** A regular expression for the end of a text would look at every run of zeros in it. */
function withoutZeros(digits: string): string {
  let end = digits.length;
  while (digits[end - 1] === "0") end -= 1;
  return digits.slice(0, end);
}

/** As PostgreSQL orders numerics: NaN above everything. */
function compareDecimals(one: string, other: string): number {
  const [left, right] = [rankOf(one), rankOf(other)];
  if (left !== right) return left - right;
  if (left === NEGATIVE) return compareMagnitudes(other.slice(1), one.slice(1));
  return left === POSITIVE ? compareMagnitudes(one, other) : 0;
}

const NEGATIVE = 1;
const POSITIVE = 2;

function rankOf(mark: string): number {
  if (mark === "-Infinity") return 0;
  if (mark.startsWith("-")) return NEGATIVE;
  return mark === "NaN" ? 4 : mark === "Infinity" ? 3 : POSITIVE;
}

function compareMagnitudes(one: string, other: string): number {
  const [left = "", leftFraction = ""] = one.split(".");
  const [right = "", rightFraction = ""] = other.split(".");
  return left.length - right.length || compareText(left, right) || compareText(leftFraction, rightFraction);
}

/** The year is written so that its order is that of the text; the rest of the ISO form is that by itself. */
const FIRST_YEAR = 10_000;
const STORED = /^(\d{4,7})(-\d\d-\d\d)(?: (\d\d:\d\d:\d\d)(\.\d{1,6})?(?:\+00)?)?( BC)?$/;
const WRITTEN = /^(\d{4,7})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(\.\d{1,6})?)?(Z|[+-]00(?::?00)?)?)?( BC)?$/;

function timesOf(type: string): ValueKind {
  return {
    mark: (value) => markStoredTime(value) ?? unreadable(),
    markOf: (literal) => markWrittenTime(literal, type),
    compare: compareText,
    isText: false,
  };
}

function markStoredTime(value: string): string | undefined {
  if (value === "infinity") return "9999999";
  if (value === "-infinity") return "0000000";
  const match = STORED.exec(value);
  if (!match) return undefined;
  const [, year = "", day = "", time = "00:00:00", fraction = "", era] = match;
  return markTime({ year, era, rest: `${day} ${time}${trimFraction(fraction)}` });
}

function markTime({ year, era, rest }: { year: string; era: string | undefined; rest: string }): string {
  // There is no year 0: 1 BC comes before 1.
  const number = era === undefined ? Number(year) : 1 - Number(year);
  return `${String(number + FIRST_YEAR).padStart(7, "0")}${rest}`;
}

function trimFraction(fraction: string): string {
  return fraction.replace(/\.?0*$/, "");
}

function markWrittenTime({ type, text, at }: Literal, columnType: string): string {
  if (text === "infinity" || text === "-infinity") return markStoredTime(text) as string;
  const match = type === "text" ? WRITTEN.exec(text) : null;
  const [, year = "", month = "", day = "", hour = "00", minute = "00", second = "00", fraction = "", zone, era] =
    match ?? [];
  const isDay = Number(day) >= 1 && Number(day) <= daysOf(Number(year), Number(month), era !== undefined);
  if (!match || !isDay || Number(hour) > 23 || Number(minute) > 59 || Number(second) > 59 || Number(year) === 0) {
    const form = columnType === "date" ? "'2026-11-21'" : "'2026-11-21 09:03:00'";
    throw invalidWhere("this is no time in ISO form", at, `Write it like ${form}; times with a zone are in UTC.`);
  }
  if (zone !== undefined && columnType !== "timestamp with time zone") {
    throw invalidWhere("the column has no time zone, but this time has one", at);
  }
  if (columnType === "date" && match[4] !== undefined) {
    throw invalidWhere("the column holds dates, and this has a time of day", at);
  }
  return markTime({ year, era, rest: `-${month}-${day} ${hour}:${minute}:${second}${trimFraction(fraction)}` });
}

function daysOf(year: number, month: number, isBefore: boolean): number {
  if (month < 1 || month > 12) return 0;
  const astronomical = isBefore ? 1 - year : year;
  // The calendar repeats every 400 years, and years below 100 mean others to Date.
  const same = 2000 + (((astronomical % 400) + 400) % 400);
  return new Date(Date.UTC(same, month, 0)).getUTCDate();
}

function unreadable(): never {
  throw new RangeError("a value is not of the form of its type");
}
