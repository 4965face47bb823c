import { isDeepStrictEqual } from "node:util";
import { Document, isMap, isNode, isScalar, parseDocument, type YAMLMap } from "yaml";
import type { WrittenDestination } from "./destination-url.ts";

/** What a new job file is made of; secrets are references already, never values. */
export interface NewJob {
  readonly name: string;
  readonly url: string;
  /** Reference to the password: `file:…`. */
  readonly password?: string | undefined;
  readonly include?: readonly string[] | undefined;
  readonly exclude?: readonly string[] | undefined;
  readonly files?: readonly string[] | undefined;
  readonly full?: string | undefined;
  readonly incremental?: string | undefined;
  readonly timezone?: string | undefined;
  readonly destinations: readonly WrittenDestination[];
  /** URL of the disaster-recovery site, or a reference to it. */
  readonly drUrl?: string | undefined;
  /** Public keys that the snapshots are encrypted to. */
  readonly recipients?: readonly string[] | undefined;
  /** Reference to the secret key, where this machine shall be able to read what it wrote. */
  readonly identity?: string | undefined;
  readonly codec?: string | undefined;
  readonly level?: number | undefined;
  readonly parallel?: number | undefined;
}

const COMMENTS: Readonly<Record<string, string>> = {
  source: " The database. Secrets: ${env:NAME}, file:path or cmd:command.",
  tables: " Which tables; left out: all of them.",
  files: " Files and directories kept in the same snapshot.",
  schedule: " Cron expressions of five fields, in quotes.",
  destinations: " All of them get every snapshot, each with its own fate.",
  encryption: " Without the secret key nobody can restore: keep more than one copy of it, apart from the backups.",
  compression: " zstd 1-19, gzip 1-9, or none.",
  dr: " The disaster-recovery site: for compare, and for restore --to dr.",
  parallel: " Connections that read rows.",
};

/** Renders the YAML of a new job, with a comment above each part. */
export function renderJobText(job: NewJob): string {
  const content: Record<string, unknown> = {
    version: 1,
    name: job.name,
    source: { url: job.url, ...(job.password ? { password: job.password } : {}) },
  };
  const tables = { ...(job.include ? { include: job.include } : {}), ...(job.exclude ? { exclude: job.exclude } : {}) };
  if (Object.keys(tables).length > 0) content["tables"] = tables;
  if (job.files?.length) content["files"] = job.files;
  const { full, incremental, timezone } = job;
  if (full || incremental) {
    content["schedule"] = {
      ...(full ? { full } : {}),
      ...(incremental ? { incremental } : {}),
      ...(timezone ? { timezone } : {}),
    };
  }
  content["destinations"] = job.destinations;
  if (job.codec || job.level) {
    content["compression"] = { codec: job.codec ?? "zstd", ...(job.level ? { level: job.level } : {}) };
  }
  if (job.recipients?.length) {
    content["encryption"] = { recipients: job.recipients, ...(job.identity ? { identity: job.identity } : {}) };
  }
  if (job.drUrl) content["dr"] = { url: job.drUrl };
  if (job.parallel) content["parallel"] = job.parallel;
  const document = new Document(content);
  document.commentBefore = " A rowkeep job. rowkeep job validate checks it; docs/job-file.md explains every field.";
  for (const item of (document.contents as YAMLMap).items) {
    const key = item.key as { value?: unknown; commentBefore?: string | null; spaceBefore?: boolean };
    const comment = COMMENTS[String(key.value)];
    if (!comment) continue;
    key.commentBefore = comment;
    key.spaceBefore = true;
  }
  return document.toString({ lineWidth: 110, defaultStringType: "PLAIN" });
}

/** Switches a job on or off in its text; everything else stays as it was written. */
export function renderEnabled(text: string, enabled: boolean): string {
  const document = parseDocument(text);
  const edited = editEnabled(text, document.contents, enabled);
  document.set("enabled", enabled);
  if (saysTheSame(edited, document.toJS())) return edited;
  // YAML has more ways to write a map than the edits know: this one writes all of it anew.
  if (enabled) document.delete("enabled");
  return document.toString({ lineWidth: 0 });
}

/** A line as switching off adds it, from where a line begins. */
const ADDED_LINE = /[ \t]*enabled: false[ \t]*(?:\r?\n|$)/y;
const ADDED_IN_FLOW = '"enabled": false, ';

function editEnabled(text: string, map: unknown, enabled: boolean): string {
  if (!isMap(map)) return text;
  const [mapStart = 0] = map.range ?? [];
  const pair = map.items.find(({ key }) => isScalar(key) && key.value === "enabled");
  if (isNode(pair?.key) && isNode(pair.value) && pair.key.range && pair.value.range) {
    const added = enabled ? addedAt(text, { mapStart, keyStart: pair.key.range[0] }) : undefined;
    const [start, end] = added ?? pair.value.range;
    return text.slice(0, start) + (added ? "" : String(enabled)) + text.slice(end);
  }
  if (enabled) return text;
  if (map.flow) return `${text.slice(0, mapStart + 1)}${ADDED_IN_FLOW}${text.slice(mapStart + 1)}`;
  const newline = text.includes("\r\n") ? "\r\n" : "\n";
  const indent = /[ \t]*$/.exec(text.slice(0, mapStart))?.[0] ?? "";
  return `${text}${text.endsWith("\n") ? "" : newline}${indent}enabled: false${newline}`;
}

/** Where what switching off had added begins and ends; undefined where a person wrote it otherwise. */
function addedAt(
  text: string,
  { mapStart, keyStart }: { readonly mapStart: number; readonly keyStart: number },
): readonly [number, number] | undefined {
  if (keyStart === mapStart + 1 && text.startsWith(ADDED_IN_FLOW, keyStart))
    return [keyStart, keyStart + ADDED_IN_FLOW.length];
  const lineStart = text.lastIndexOf("\n", keyStart) + 1;
  ADDED_LINE.lastIndex = lineStart;
  return ADDED_LINE.test(text) ? [lineStart, ADDED_LINE.lastIndex] : undefined;
}

/** Whether a text is a valid file with this content; a job is on where it does not say otherwise. */
function saysTheSame(text: string, content: unknown): boolean {
  const document = parseDocument(text);
  if (document.errors.length > 0 || !isMap(document.contents)) return false;
  if (!document.has("enabled")) document.set("enabled", true);
  return isDeepStrictEqual(document.toJS(), content);
}
