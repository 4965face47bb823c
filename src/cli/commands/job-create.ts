import { basename, join, resolve } from "node:path";
import { OperationalError } from "../../base/errors.ts";
import { connectionOfUrl } from "../../job/connection.ts";
import { checkJob } from "../../job/check-job.ts";
import { type NewJob, renderJobText } from "../../job/job-text.ts";
import { planSecretFiles } from "../../job/destination-secrets.ts";
import { parseDestinationUrl, withAbsolutePaths, type WrittenDestination } from "../../job/destination-url.ts";
import { lockOf } from "../../job/encryption.ts";
import { nextFirings } from "../../job/schedule.ts";
import { keepSecret, resolveSecret } from "../../job/secrets.ts";
import { hidePassword, writeWhole } from "../../job/write-job.ts";
import type { CommandAction, Invocation } from "../command.ts";
import type { CliContext } from "../context.ts";
import { formatTime } from "../format.ts";
import { homeOf } from "../job-context.ts";
import { readCount, readList, readText } from "../option-values.ts";
import { newJobSurroundings, tryDestination } from "../try-destination.ts";

/** What a person wants the new job to be, from flags or from the wizard. The URL may still hold a password. */
export type WantedJob = Omit<NewJob, "name"> & { readonly name?: string | undefined };

/** Makes a job file: by questions in a terminal, by flags otherwise. Nothing is written before everything was tried. */
export const jobCreate: CommandAction = async (context, { args, options }) => {
  const asks = context.isInteractive && options.yes !== true;
  const given = wantedByFlags(context, args, options);
  let wanted: WantedJob;
  if (asks) {
    const { askForJob } = await import("../wizard/ask-for-job.ts");
    wanted = await askForJob(context, given);
  } else {
    wanted = complete(given);
    if (options.check !== false) await tryOut(context, wanted);
  }
  const { path, name } = await write(context, wanted, options.force === true);
  const firings = wanted.full ? nextFirings({ full: wanted.full, timezone: wanted.timezone }, context.now(), 3) : [];
  context.output.result({ job: name, file: path, nextRuns: firings.map(({ at }) => at.toISOString()) }, () => {
    const { output } = context;
    output.line(`${output.paint.green("created:")} ${name} in ${path}`);
    if (firings.length > 0) {
      output.line(`next runs: ${firings.map(({ at }) => formatTime(at.toISOString())).join(", ")}`);
      output.line(
        "The schedule is kept in the file; running by itself is not available yet: let cron call rowkeep run.",
      );
    }
    output.line(`Try it: rowkeep run ${name}`);
  });
  return 0;
};

function wantedByFlags(
  { cwd }: CliContext,
  args: Invocation["args"],
  options: Invocation["options"],
): Partial<WantedJob> {
  const to = options.to === undefined ? [] : [options.to].flat().map(String);
  return {
    name: readText(args[0]),
    url: readText(options.url),
    include: readList(options.tables, "--tables"),
    exclude: readList(options.exclude, "--exclude"),
    files: readList(options.files, "--files"),
    full: readText(options.full),
    timezone: readText(options.timezone),
    destinations: to.map((text) => parseDestinationUrl(text, cwd)),
    recipients: readList(options.encryptTo, "--encrypt-to"),
    codec: readText(options.codec),
    level: readCount(options.level, "--level"),
    parallel: readCount(options.parallel, "--parallel"),
  } as Partial<WantedJob>;
}

function complete(given: Partial<WantedJob>): WantedJob {
  const missing = [given.url ? "" : "--url", given.destinations?.length ? "" : "--to"].filter((flag) => flag !== "");
  if (!given.url || !given.destinations || missing.length > 0) {
    throw new OperationalError(`cannot create a job without a terminal: ${missing.join(" and ")} missing`, {
      kind: "usage",
      code: "missing-option",
      hint: "Give it, or run this in a terminal to be asked.",
    });
  }
  return { ...given, url: given.url, destinations: given.destinations };
}

/** Tries the connection, the keys and every destination. */
async function tryOut(context: CliContext, wanted: WantedJob): Promise<void> {
  const { probeDatabase } = await import("../../drivers/open-driver.ts");
  const surroundings = newJobSurroundings(context);
  const url = await resolveSecret(wanted.url, "source.url", surroundings);
  const connection = await connectionOfUrl(url, context);
  await probeDatabase(connection, context);
  const { recipients } = wanted;
  if (recipients)
    await lockOf({ name: wanted.name ?? "the new job", encryption: { recipients: [...recipients] } }, surroundings);
  for (const [index, destination] of wanted.destinations.entries()) {
    for (const warning of await tryDestination(context, destination, index)) context.output.warn(warning);
  }
}

async function write(context: CliContext, wanted: WantedJob, force: boolean): Promise<{ path: string; name: string }> {
  const home = homeOf(context);
  const name = wanted.name ?? nameOf(wanted);
  const path = join(home.jobs, `${name}.yaml`);
  const absolute = wanted.destinations.map((destination) => withAbsolutePaths(destination, context.cwd));
  const { destinations, files: secrets } = planSecretFiles(home, name, absolute);
  const files = wanted.files?.map((file) => resolve(context.cwd, file));
  const isWhole = wanted.url.includes("${") || /^(file|cmd|keychain):/.test(wanted.url);
  // Checked before anything is written: with the password still out of it.
  const render = (url: string, password?: string) =>
    renderJobText({ ...wanted, name, url, password, destinations, files });
  checkJob([{ path, text: render(isWhole ? wanted.url : withoutPassword(wanted.url)) }]);
  for (const secret of secrets) await writeWhole(secret.path, secret.text, { replace: force });
  const hidden = isWhole ? undefined : await hidePassword(home, name, wanted.url, { replace: force });
  const password = hidden?.passwordFile && `file:${hidden.passwordFile}`;
  await writeWhole(path, render(hidden?.url ?? wanted.url, password), { replace: force });
  return { path, name };
}

function withoutPassword(text: string): string {
  const url = new URL(text);
  if (url.password) keepSecret(decodeURIComponent(url.password));
  url.password = "";
  return url.href;
}

function nameOf(wanted: WantedJob): string {
  const database = /^[a-z]+:\/\/[^/]*\/([^?#]+)/.exec(wanted.url)?.[1] ?? "job";
  const [first] = wanted.destinations;
  const place = (first?.type === "local" ? basename(pathOf(first)) : first?.type) || "local";
  return (
    `${decodeURIComponent(database)}-${place}`
      .replace(/[^0-9A-Za-z._-]+/g, "-")
      .replace(/^[^0-9A-Za-z]+/, "")
      .slice(0, 80) || "job"
  );
}

function pathOf(destination: WrittenDestination): string {
  return typeof destination["path"] === "string" ? destination["path"] : "";
}
