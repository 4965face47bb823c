import { readFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { parseDocument } from "yaml";
import { parseUrl } from "./connection.ts";
import { isSecretValue, type WrittenDestination } from "./destination-url.ts";
import type { Home } from "./home.ts";
import { jobNameOfPath, listJobFiles } from "./read-job.ts";
import { isReference, keepSecret } from "./secrets.ts";
import type { NewFile } from "./write-job.ts";

/**
 * Takes the secrets that somebody typed out of destinations: gives destinations with references in their place, and the
 * files that the references lead to. Pure: nothing is written.
 */
export function planSecretFiles(
  home: Pick<Home, "secrets">,
  job: string,
  destinations: readonly WrittenDestination[],
): { readonly destinations: readonly WrittenDestination[]; readonly files: readonly NewFile[] } {
  const files: NewFile[] = [];
  const hidden = destinations.map((destination, index) => {
    const fields: Record<string, string | number | boolean> = { ...destination };
    for (const [name, value] of Object.entries(destination)) {
      if (!isSecretValue(name, value)) continue;
      const path = join(home.secrets, `${job}.${destination.type}-${index + 1}.${name}`);
      files.push({ path, text: `${String(value)}\n` });
      fields[name] = `file:${path}`;
    }
    return fields as unknown as WrittenDestination;
  });
  return { destinations: hidden, files };
}

/** Takes the password out of the URL of a job's source, in the same way; a URL with references stays as it is. */
export function planPasswordFile(
  home: Pick<Home, "secrets">,
  job: string,
  url: string,
): { readonly url: string; readonly password?: string; readonly files: readonly NewFile[] } {
  const parsed = hasReference(url) ? undefined : parseUrl(url);
  if (!parsed?.password) return { url, files: [] };
  const password = decodeURIComponent(parsed.password);
  keepSecret(password);
  parsed.password = "";
  const path = join(home.secrets, `${job}.password`);
  return { url: parsed.href, password: `file:${path}`, files: [{ path, text: `${password}\n` }] };
}

/** Takes the URL of a job's disaster-recovery site, where it holds a password, out of the job file as a whole. */
export function planDrUrlFile(
  home: Pick<Home, "secrets">,
  job: string,
  url: string,
): { readonly url: string; readonly files: readonly NewFile[] } {
  const password = hasReference(url) ? "" : parseUrl(url).password;
  if (password === "") return { url, files: [] };
  keepSecret(decodeURIComponent(password));
  const path = join(home.secrets, `${job}.dr-url`);
  return { url: `file:${path}`, files: [{ path, text: `${url}\n` }] };
}

/**
 * Finds the secret files that `job create` stored for the job of this file and that no other job of the home refers to. Keys of
 * encryption are never among them: the snapshots of the job stay, and need them.
 */
export async function findSecretFiles(home: Home, path: string): Promise<readonly string[]> {
  const name = jobNameOfPath(path);
  const own = referredFiles(await textOf(path), dirname(path)).filter(
    (file) => dirname(file) === home.secrets && basename(file).startsWith(`${name}.`),
  );
  if (own.length === 0) return [];
  const others = [...(await listJobFiles(home)).filter((other) => other !== path), home.defaultsFile];
  const texts = await Promise.all(others.map(textOf));
  // By its name alone: another job may be one that cannot be parsed.
  return own.filter((file) => !texts.some((text) => text.includes(basename(file))));
}

/** The secret files that a job file refers to, but those of its encryption; none when it cannot be parsed. */
function referredFiles(text: string, folder: string): readonly string[] {
  let job: Readonly<Record<string, unknown>> | null;
  try {
    job = parseDocument(text).toJS({ maxAliasCount: 20 }) as typeof job;
  } catch {
    return [];
  }
  return textsIn([job?.["source"], job?.["dr"], job?.["destinations"]])
    .filter((reference) => reference.startsWith("file:"))
    .map((reference) => resolve(folder, reference.slice("file:".length)));
}

function textOf(path: string): Promise<string> {
  return readFile(path, "utf8").catch(() => "");
}

function textsIn(value: unknown): readonly string[] {
  if (typeof value === "string") return [value];
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(textsIn) : [];
}

/** Whether a URL, or a part of it, lies elsewhere. */
export function hasReference(url: string): boolean {
  return url.includes("${") || isReference(url);
}
