import { readdir, readFile } from "node:fs/promises";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import { checkJob, type JobText, type PassOverSchedule } from "./check-job.ts";
import type { Home } from "./home.ts";
import type { JobFile } from "./job-schema.ts";
import { nearestName } from "../base/nearest-name.ts";

/** A job as it is used: checked, with defaults merged, secrets still unresolved. */
export interface Job extends JobFile {
  readonly name: string;
  /** Absolute path of its file. */
  readonly path: string;
  /** Folder that relative paths of the job are relative to. */
  readonly folder: string;
}

export interface ReadJobOptions {
  /** Folder that a relative path of a job file is relative to. */
  readonly cwd: string;
  /** Left out: a schedule that cannot be used is a failure. */
  readonly passOverSchedule?: PassOverSchedule | undefined;
}

/**
 * Reads a job by its name in the jobs folder, or by the path of its file (contains a slash or ends in .yaml/.yml).
 * Fails with kind `job`: `not-found`, `invalid-job` (all problems at once, each with file, line and column).
 */
export async function readJob(nameOrPath: string, home: Home, { cwd, passOverSchedule }: ReadJobOptions): Promise<Job> {
  const path = await findJobFile(nameOrPath, home, cwd);
  const text = await readIfThere(path);
  if (text === undefined) throw await noSuchJob(nameOrPath, path, home);
  const file = await checkWithDefaults({ path, text }, home, passOverSchedule);
  return { ...file, name: file.name ?? madeName(file), path, folder: dirname(path) };
}

/** Checks the text of a job as `checkJob` does, above the defaults of this home. */
export async function checkWithDefaults(
  own: JobText,
  home: Home,
  passOverSchedule?: PassOverSchedule,
): Promise<JobFile> {
  const text = await readIfThere(home.defaultsFile);
  const defaults = text === undefined ? [] : [{ path: home.defaultsFile, text }];
  return checkJob([...defaults, own], passOverSchedule);
}

/** Gives the paths of all job files in the jobs folder, in the order of names. */
export async function listJobFiles(home: Home): Promise<readonly string[]> {
  try {
    const entries = await readdir(home.jobs);
    return entries
      .filter((entry) => /\.ya?ml$/.test(entry))
      .sort()
      .map((entry) => join(home.jobs, entry));
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw new OperationalError(`cannot list the jobs in ${home.jobs}: ${messageOf(error)}`, {
      kind: "job",
      code: "unreadable",
      cause: error,
    });
  }
}

/** Tells the file that a job's name or path stands for, whether it exists or not. */
export async function findJobFile(nameOrPath: string, home: Home, cwd: string): Promise<string> {
  if (nameOrPath.includes("://")) {
    throw new OperationalError(`cannot read the job ${nameOrPath}: it is a URL, not a job`, {
      kind: "job",
      code: "not-found",
      hint: "Make a job for it with rowkeep job create, or use rowkeep export.",
    });
  }
  if (/[\\/]/.test(nameOrPath) || /\.ya?ml$/.test(nameOrPath)) {
    return isAbsolute(nameOrPath) ? nameOrPath : resolve(cwd, nameOrPath);
  }
  const files = await listJobFiles(home);
  return files.find((path) => jobNameOfPath(path) === nameOrPath) ?? join(home.jobs, `${nameOrPath}.yaml`);
}

/** The name that a job file has by its own name. */
export function jobNameOfPath(path: string): string {
  return path.replace(/^.*[\\/]/, "").replace(/\.ya?ml$/, "");
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if (codeOf(cause) === "ENOENT" || codeOf(cause) === "ENOTDIR") return undefined;
    throw new OperationalError(`cannot read ${path}: ${messageOf(cause)}`, { kind: "job", code: "unreadable", cause });
  }
}

async function noSuchJob(name: string, path: string, home: Home): Promise<OperationalError> {
  const known = (await listJobFiles(home)).map(jobNameOfPath);
  const near = nearestName(name, known);
  const list =
    known.length === 0 ? "There are no jobs yet: rowkeep job create makes one" : `Known jobs: ${known.join(", ")}`;
  return new OperationalError(`cannot read the job ${name}: ${path} does not exist`, {
    kind: "job",
    code: "not-found",
    hint: near ? `Did you mean ${near}?` : `${list}.`,
  });
}

function madeName(file: JobFile): string {
  const [destination] = file.destinations;
  const place = destination?.name ?? destination?.type ?? "local";
  const name = `${databaseOf(file)}-${place}`.replace(/[^0-9A-Za-z._-]+/g, "-").replace(/^[^0-9A-Za-z]+/, "");
  return (name || "job").slice(0, 80);
}

function databaseOf(file: JobFile): string {
  if (Array.isArray(file.databases)) return file.databases.join("-");
  if (file.source.database && !file.source.database.includes("${")) return file.source.database;
  const fromUrl = /^[a-z]+:\/\/[^/]*\/([^?#]+)/.exec(file.source.url ?? "")?.[1];
  return fromUrl ? decodeURIComponent(fromUrl) : "database";
}
