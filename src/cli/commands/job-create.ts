import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { OperationalError } from "../../base/errors.ts";
import { checkJob } from "../../job/check-job.ts";
import { type NewJob, renderJobText } from "../../job/job-text.ts";
import { planDrUrlFile, planPasswordFile, planSecretFiles } from "../../job/secret-files.ts";
import {
  absoluteReference,
  parseDestinationUrl,
  withAbsolutePaths,
  type WrittenDestination,
} from "../../job/destination-url.ts";
import { lockOf } from "../../job/encryption.ts";
import { faultOfNewName } from "../../job/job-schema.ts";
import { nextFirings, problemOfCron, problemOfTimezone } from "../../job/schedule.ts";
import { alreadyThere, writeAll } from "../../job/write-job.ts";
import type { CommandAction, Invocation } from "../command.ts";
import type { CliContext } from "../context.ts";
import { formatTime } from "../format.ts";
import { connectionOfArgument, homeOf } from "../job-context.ts";
import { readCount, readList, readText } from "../option-values.ts";
import { DestinationTrial, newJobSurroundings } from "../try-destination.ts";

/** What a person wants the new job to be, from flags or from the wizard. The URL may still hold a password. */
export type WantedJob = Omit<NewJob, "name"> & { readonly name?: string | undefined };

/** Makes a job file: by questions in a terminal, by flags otherwise. Nothing is written before everything was tried. */
export const jobCreate: CommandAction = async (context, { args, options }) => {
  const asks = context.isInteractive && options.yes !== true;
  const given = wantedByFlags(context, args, options);
  const isTaken = (name: string) => options.force !== true && existsSync(fileOf(context, name));
  if (given.name !== undefined && isTaken(given.name)) throw alreadyThere(fileOf(context, given.name));
  if (options.check !== false && given.drUrl) await tryDatabase(context, given.drUrl, "dr.url");
  await using trial = new DestinationTrial(context);
  let wanted: WantedJob;
  if (asks) {
    const { askForJob } = await import("../wizard/ask-for-job.ts");
    wanted = await askForJob(context, given, { isTaken, trial });
  } else {
    wanted = complete(given);
    if (options.check !== false) await tryOut(context, wanted, trial);
  }
  const { path, name } = await write(context, wanted, options.force === true);
  await trial.keep(wanted.destinations);
  const { full, incremental, timezone } = wanted;
  const firings = nextFirings({ full, incremental, timezone }, context.now(), 3);
  context.output.result({ job: name, file: path, nextRuns: firings.map(({ at }) => at.toISOString()) }, () => {
    const { output } = context;
    output.line(`${output.paint.green("created:")} ${name} in ${path}`);
    if (firings.length > 0) {
      const times = firings.map(({ at, kind }) => `${formatTime(at.toISOString())}${incremental ? ` (${kind})` : ""}`);
      output.line(`next runs: ${times.join(", ")}`);
      const more = incremental ? `, for the incrementals rowkeep run ${name} --incremental` : "";
      output.line(
        `The schedule is kept in the file; running by itself is not available yet: let cron call rowkeep run ${name}${more}.`,
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
    name: readName(args[0]),
    url: readUrl(options.url, cwd),
    include: readList(options.tables, "--tables"),
    exclude: readList(options.exclude, "--exclude"),
    files: readList(options.files, "--files"),
    full: readSchedule(options.full, "--full", problemOfCron),
    incremental: readSchedule(options.incremental, "--incremental", problemOfCron),
    timezone: readSchedule(options.timezone, "--timezone", problemOfTimezone),
    drUrl: readUrl(options.drUrl, cwd),
    destinations: to.map((text) => parseDestinationUrl(text, cwd)),
    recipients: readList(options.encryptTo, "--encrypt-to"),
    codec: readText(options.codec),
    level: readCount(options.level, "--level"),
    parallel: readCount(options.parallel, "--parallel"),
  } as Partial<WantedJob>;
}

function readName(value: unknown): string | undefined {
  const name = readText(value);
  const fault = name === undefined ? undefined : faultOfNewName(name);
  if (fault === undefined) return name;
  throw new OperationalError(`cannot create the job ${JSON.stringify(name)}: its name ${fault}`, {
    kind: "usage",
    code: "invalid-name",
    hint: "Choose a name like shop or shop-nightly.",
  });
}

function readUrl(value: unknown, cwd: string): string | undefined {
  const text = readText(value);
  return text && absoluteReference(text, cwd);
}

/** Says which flag is wrong: the file that would be is not there to be corrected. */
function readSchedule(value: unknown, flag: string, problemOf: typeof problemOfCron): string | undefined {
  const text = readText(value);
  const problem = text === undefined ? undefined : problemOf(text);
  if (problem === undefined) return text;
  throw new OperationalError(`cannot use ${flag}: ${problem}`, {
    kind: "usage",
    code: "invalid-schedule",
    hint: "See rowkeep job create --help for examples.",
  });
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
async function tryOut(context: CliContext, wanted: WantedJob, trial: DestinationTrial): Promise<void> {
  await tryDatabase(context, wanted.url, "source.url");
  const { recipients, destinations } = wanted;
  if (recipients) {
    const job = { name: wanted.name ?? "the new job", encryption: { recipients: [...recipients] } };
    await lockOf(job, newJobSurroundings(context));
  }
  for (const [index, destination] of destinations.entries()) {
    for (const warning of await trial.try(destination, index)) context.output.warn(warning);
  }
}

async function tryDatabase(context: CliContext, url: string, field: string): Promise<void> {
  const { probeDatabase } = await import("../../drivers/open-driver.ts");
  await probeDatabase(await connectionOfArgument(context, url, field), context);
}

async function write(context: CliContext, wanted: WantedJob, force: boolean): Promise<{ path: string; name: string }> {
  const home = homeOf(context);
  const name = wanted.name ?? nameOf(wanted);
  const path = fileOf(context, name);
  const absolute = wanted.destinations.map((destination) => withAbsolutePaths(destination, context.cwd));
  const { destinations, files: secrets } = planSecretFiles(home, name, absolute);
  const source = planPasswordFile(home, name, wanted.url);
  const dr = wanted.drUrl === undefined ? undefined : planDrUrlFile(home, name, wanted.drUrl);
  const files = wanted.files?.map((file) => resolve(context.cwd, file));
  const { url, password } = source;
  const text = renderJobText({ ...wanted, name, url, password, drUrl: dr?.url, destinations, files });
  // Checked before anything is written.
  checkJob([{ path, text }]);
  await writeAll([...secrets, ...source.files, ...(dr?.files ?? []), { path, text }], { replace: force });
  return { path, name };
}

function fileOf(context: CliContext, name: string): string {
  return join(homeOf(context).jobs, `${name}.yaml`);
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

/** Of a folder on this machine. */
function pathOf(destination: WrittenDestination): string {
  return destination.type === "local" && typeof destination["path"] === "string" ? destination["path"] : "";
}
