import { type Document, isCollection, isMap, isPair, isScalar, LineCounter, parseDocument } from "yaml";
import type { z } from "zod";
import { OperationalError } from "../base/errors.ts";
import { destinationNameOf } from "./destination-name.ts";
import { type JobFile, jobSchema } from "./job-schema.ts";
import { nearestName } from "../base/nearest-name.ts";
import { problemsOfSchedule } from "./schedule.ts";

/** The text of one YAML file. Later ones stand above earlier ones. */
export interface JobText {
  readonly path: string;
  readonly text: string;
}

interface Parsed {
  readonly path: string;
  readonly document: Document.Parsed;
  readonly lines: LineCounter;
  readonly value: Readonly<Record<string, unknown>>;
}

/** Takes why a schedule cannot be used, for those who need none. */
export type PassOverSchedule = (reason: OperationalError) => void;

/**
 * Checks a job's text, with defaults merged under it, and gives what it says. With `passOverSchedule` a job that is good but for its
 * schedule is one without a schedule.
 * Fails with kind `job`, `invalid-job`; the message lists every problem as `file:line:column: field: what is wrong`.
 */
export function checkJob(texts: readonly JobText[], passOverSchedule?: PassOverSchedule): JobFile {
  const parsed = texts.map(parse);
  const merged = parsed.map(({ value }) => value).reduce(merge, {});
  const checked = check(merged, parsed);
  if (!Array.isArray(checked)) return checked;
  const failure = invalid(checked, texts);
  const { schedule: _schedule, ...others } = merged;
  const rest = passOverSchedule ? check(others, parsed) : [];
  if (Array.isArray(rest)) throw failure;
  passOverSchedule?.(failure);
  return rest;
}

/** Gives the problems, or the job where there are none. */
function check(merged: Readonly<Record<string, unknown>>, parsed: readonly Parsed[]): JobFile | string[] {
  const result = jobSchema.safeParse(merged, { reportInput: true });
  if (!result.success) return result.error.issues.flatMap((issue) => problemsOf(issue, parsed));
  const problems = crossProblems(result.data, parsed);
  return problems.length > 0 ? problems : result.data;
}

function parse({ path, text }: JobText): Parsed {
  const lines = new LineCounter();
  const options = {
    lineCounter: lines,
    uniqueKeys: true,
    version: "1.2",
    prettyErrors: false,
    logLevel: "error",
  } as const;
  const document = parseDocument(text, options);
  // The parser stumbles on over the rest of a line that it did not understand: the first problem of a line says it.
  const byLine = new Map<number, string>();
  for (const error of document.errors) {
    const { line, col } = lines.linePos(error.pos[0]);
    if (!byLine.has(line))
      byLine.set(line, `${path}:${line}:${col}: ${explainYaml(error.message, text, error.pos[0])}`);
  }
  const problems = [...byLine.values()];
  if (problems.length > 0) throw invalid(problems, [{ path, text }]);
  const value = contentOf(document);
  if (value === EXCESSIVE)
    throw invalid([`${path}:1:1: its aliases stand for too much: write it out`], [{ path, text }]);
  if (value === null || value === undefined) return { path, document, lines, value: {} };
  if (typeof value !== "object" || Array.isArray(value)) {
    throw invalid([`${path}:1:1: the file must hold fields like "name: shop"`], [{ path, text }]);
  }
  return { path, document, lines, value: value as Record<string, unknown> };
}

const EXCESSIVE = Symbol("excessive");

function contentOf(document: Document.Parsed): unknown {
  try {
    return document.toJS({ maxAliasCount: 20 });
  } catch (error) {
    // So it says that aliases of aliases would fill the memory, and nothing else.
    if (error instanceof ReferenceError) return EXCESSIVE;
    throw error;
  }
}

/** YAML's own words, or better ones for what people stumble over in job files. */
function explainYaml(message: string, text: string, at: number): string {
  const lineStart = text.lastIndexOf("\n", at - 1) + 1;
  const line = text.slice(lineStart, text.indexOf("\n", at) === -1 ? undefined : text.indexOf("\n", at));
  if (/^\s*\t|^ *\t/.test(line) || /tab/i.test(message))
    return "a tab stands where only spaces may: indent with spaces";
  if (/:\s*(\*|@hourly|@daily)/.test(line)) return `a value that begins with * must be quoted: ${quotedLine(line)}`;
  return message.replace(/\s+at line \d+.*$/s, "");
}

function quotedLine(line: string): string {
  return line.trim().replace(/:\s*(.*)$/, (_, value: string) => `: "${value}"`);
}

function merge(
  under: Readonly<Record<string, unknown>>,
  over: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  // Without a prototype a key called __proto__ is one like any other.
  const result: Record<string, unknown> = { __proto__: null, ...under };
  for (const [key, value] of Object.entries(over)) {
    const below = result[key];
    const both = isRecord(value) && isRecord(below);
    result[key] = both ? merge(below, value) : value;
  }
  return result;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function problemsOf(issue: z.core.$ZodIssue, parsed: readonly Parsed[]): readonly string[] {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => {
      const path = [...issue.path, key];
      const near = nearestName(key, knownFields(issue.path));
      const words =
        path.join() === "state" ? "not available yet" : `unknown field${near ? `, did you mean ${near}?` : ""}`;
      return `${placeOf(path, parsed, true)}: ${fieldOf(path)}: ${words}`;
    });
  }
  return [`${placeOf(issue.path, parsed, false)}: ${fieldOf(issue.path)}: ${wordsOf(issue)}`];
}

function wordsOf(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_type") {
    if (issue.input === undefined) return "is missing";
    const quote = issue.expected === "string" && typeof issue.input !== "object" ? ": quote it" : "";
    return `must be ${KINDS[issue.expected] ?? `a ${issue.expected}`}, not ${kindOf(issue.input)}${quote}`;
  }
  if (issue.code === "invalid_union" && issue.input !== undefined && "discriminator" in issue && issue.discriminator) {
    return `unknown ${issue.discriminator}; known: local, s3, azure, gcs, ftp, sftp`;
  }
  if (issue.code === "invalid_value") return `must be ${issue.values.map((value) => JSON.stringify(value)).join(", ")}`;
  return issue.message.charAt(0).toLowerCase() + issue.message.slice(1);
}

const KINDS: Readonly<Record<string, string>> = { array: "a list", object: "fields", boolean: "true or false" };

function kindOf(input: unknown): string {
  if (Array.isArray(input)) return "a list";
  if (input === null) return "nothing";
  if (typeof input === "number" && !Number.isFinite(input)) return String(input);
  return typeof input === "boolean" || typeof input === "object" ? (KINDS[typeof input] ?? "") : `a ${typeof input}`;
}

function fieldOf(path: readonly PropertyKey[]): string {
  return (
    path.map((key, index) => (typeof key === "number" ? `[${key}]` : `${index ? "." : ""}${String(key)}`)).join("") ||
    "job"
  );
}

/** `file:line:column` of a field; of its nearest parent that is there when it is missing. The job's own file wins. */
function placeOf(path: readonly PropertyKey[], parsed: readonly Parsed[], ofKey: boolean): string {
  for (let length = path.length; length >= 0; length -= 1) {
    for (const file of parsed.toReversed()) {
      const offset = offsetOf(file, path.slice(0, length), ofKey && length === path.length);
      if (offset === undefined) continue;
      const { line, col } = file.lines.linePos(offset);
      return `${file.path}:${line}:${col}`;
    }
  }
  return `${parsed.at(-1)?.path ?? "job"}:1:1`;
}

function offsetOf({ document }: Parsed, path: readonly PropertyKey[], ofKey: boolean): number | undefined {
  const parent = path.length > 0 ? document.getIn(path.slice(0, -1), true) : undefined;
  if (ofKey && isMap(parent)) {
    const pair = parent.items.find((item) => isPair(item) && isScalar(item.key) && item.key.value === path.at(-1));
    return pair && isScalar(pair.key) ? pair.key.range?.[0] : undefined;
  }
  const node = path.length === 0 ? document.contents : document.getIn(path, true);
  if (isScalar(node) || isCollection(node)) return node.range?.[0];
  return undefined;
}

/** The fields that may stand where `path` leads to, by walking through the schema. */
function knownFields(path: readonly PropertyKey[]): readonly string[] {
  let schemas: SchemaNode[] = [jobSchema as unknown as SchemaNode];
  for (const key of path) schemas = schemas.flatMap(unwrap).flatMap((schema) => childrenOf(schema, key));
  return schemas.flatMap(unwrap).flatMap((schema) => Object.keys(schema.shape ?? {}));
}

interface SchemaNode {
  readonly shape?: Readonly<Record<string, SchemaNode>>;
  readonly element?: SchemaNode;
  readonly options?: readonly SchemaNode[];
  unwrap?(): SchemaNode;
}

function unwrap(schema: SchemaNode): SchemaNode[] {
  if (schema.options) return schema.options.flatMap(unwrap);
  if (schema.shape || schema.element) return [schema];
  return schema.unwrap ? unwrap(schema.unwrap()) : [schema];
}

function childrenOf(schema: SchemaNode, key: PropertyKey): SchemaNode[] {
  if (typeof key === "number") return schema.element ? [schema.element] : [];
  const child = schema.shape?.[String(key)];
  return child ? [child] : [];
}

/** What no single field can tell. */
function crossProblems(job: JobFile, parsed: readonly Parsed[]): string[] {
  const problems: string[] = [];
  const add = (path: readonly PropertyKey[], words: string) =>
    problems.push(`${placeOf(path, parsed, false)}: ${fieldOf(path)}: ${words}`);
  if (!job.source.url && !job.source.engine) add(["source"], "needs a url, or engine, host, user and database");
  for (const field of ["engine", "host", "port", "user", "database"] as const) {
    if (job.source.url && job.source[field] !== undefined) add(["source", field], "stands beside a url that says it");
  }
  if (job.encryption && !job.encryption.recipients && !job.encryption.passphrase) {
    add(["encryption"], "needs recipients or a passphrase");
  }
  if (job.encryption?.recipients && job.encryption.passphrase) {
    add(["encryption", "passphrase"], "stands beside recipients: the age format takes either");
  }
  if (job.compression?.codec === "gzip" && (job.compression.level ?? 6) > 9) {
    add(["compression", "level"], "must be 1 to 9 for gzip");
  }
  for (const { field, words } of problemsOfSchedule(job.schedule ?? {})) add(["schedule", field], words);
  retentionProblems(job, parsed.at(-1)?.value ?? {}, add);
  // Retention, sync and what is known of a destination go by this name.
  const names = job.destinations.map(destinationNameOf);
  const twice = names.findIndex((name, index) => names.indexOf(name) !== index);
  if (twice >= 0) add(["destinations", twice], `two are called ${names[twice]}: leave one out, or give it a name`);
  return problems;
}

function retentionProblems(
  job: JobFile,
  own: Readonly<Record<string, unknown>>,
  add: (path: readonly PropertyKey[], words: string) => void,
): void {
  const policies = [
    { path: ["retention"] as PropertyKey[], policy: job.retention },
    ...job.destinations.map(({ retention }, index) => ({
      path: ["destinations", index, "retention"],
      policy: retention,
    })),
  ];
  for (const { path, policy } of policies) {
    if (
      policy &&
      Object.values(policy).every((value) => value === undefined || Number.parseInt(String(value), 10) === 0)
    ) {
      add(path, "keeps nothing: name at least one rule with a number above 0");
    }
    // A retention of defaults.yaml is for the jobs that can have one.
    const isOwn = path.length > 1 || own["retention"] !== undefined;
    if (policy && isOwn && job.naming === "overwrite") add(path, "stands beside naming: overwrite, which keeps one");
  }
}

function invalid(problems: readonly string[], texts: readonly JobText[]): OperationalError {
  const path = texts.at(-1)?.path ?? "the job";
  const [only] = problems;
  const message =
    problems.length === 1 && only
      ? `cannot use the job file ${only}`
      : `cannot use the job file ${path}: ${problems.length} problems\n${problems.map((problem) => `  ${problem}`).join("\n")}`;
  return new OperationalError(message, {
    kind: "job",
    code: "invalid-job",
    hint: "Correct the file; rowkeep job validate checks it again.",
  });
}
