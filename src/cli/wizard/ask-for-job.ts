import { checkbox, confirm, input, password, select } from "@inquirer/prompts";
import { OperationalError } from "../../base/errors.ts";
import type { Connection, Probe } from "../../drivers/driver.ts";
import { probeDatabase } from "../../drivers/open-driver.ts";
import { destinationNameOf } from "../../job/destination-name.ts";
import { hasReference } from "../../job/secret-files.ts";
import { faultOfNewName, type JobDestination } from "../../job/job-schema.ts";
import { nextFirings, problemOfCron } from "../../job/schedule.ts";
import { keepSecret } from "../../job/secrets.ts";
import type { WantedJob } from "../commands/job-create.ts";
import type { CliContext } from "../context.ts";
import { connectionOfArgument } from "../job-context.ts";
import { formatBytes, formatCount, formatPlural, formatTime } from "../format.ts";
import type { DestinationTrial } from "../try-destination.ts";
import { askForDestinations } from "./ask-for-destination.ts";
import { askForEncryption } from "./ask-for-encryption.ts";
import { type Asking, askingOf, isPort, tellFailure } from "./asking.ts";

export interface Making {
  /** Tells names of other jobs. */
  readonly isTaken: (name: string) => boolean;
  readonly trial: DestinationTrial;
}

/** Asks for everything that the flags left open. Leaves nothing behind when it is left by Ctrl-C. */
export async function askForJob(
  context: CliContext,
  given: Partial<WantedJob>,
  { isTaken, trial }: Making,
): Promise<WantedJob> {
  const asking = askingOf(context);
  const { url, probe } = await askForDatabase(context, given, asking);
  const tables = given.include || given.exclude ? given : await askForTables(context, probe, asking);
  const destinations = given.destinations?.length ? given.destinations : await askForDestinations(context, trial);
  const encryption = given.recipients ? undefined : await askForEncryption(context);
  const full = given.full ?? (await askForSchedule(context, asking));
  const suggested = `${probe.identity.database}`.replace(/[^0-9A-Za-z._-]+/g, "-");
  const validate = (text: string) => (isTaken(text) ? "A job with this name exists already" : isJobName(text));
  const name = given.name ?? (await input({ message: "Name of the job", default: suggested, validate }, asking));
  const wanted = { ...given, ...tables, url, destinations, full, name };
  summarise(context, wanted, { probe, encryption: encryption?.words ?? "to the given keys" });
  if (!(await confirm({ message: "Write this job?", default: true }, asking))) {
    throw new OperationalError("cannot create the job: you said no", { kind: "refused", code: "not-confirmed" });
  }
  return { ...wanted, ...(await encryption?.settle()) };
}

function isJobName(text: string): true | string {
  const fault = faultOfNewName(text);
  return fault === undefined || `It ${fault}`;
}

interface Reached {
  readonly url: string;
  readonly probe: Probe;
}

/** Asks until a connection works: after a typing mistake every answer is offered again, only the password is not. */
async function askForDatabase(context: CliContext, given: Partial<WantedJob>, asking: Asking): Promise<Reached> {
  if (!given.url) await select({ message: "Engine", choices: [{ name: "PostgreSQL", value: "postgres" }] }, asking);
  let login: Login = { host: "localhost", port: "5432", user: process.env["USER"] ?? "postgres", database: "postgres" };
  for (;;) {
    if (!given.url) login = await askForLogin(login, asking);
    const url = given.url ?? urlOf(login);
    try {
      const connection = await connectionOfArgument(context, url, "--url");
      context.output.note(`Trying ${connection.user}@${connection.host}:${connection.port} …`);
      const probe = await probeDatabase(connection, context);
      context.output.note(`Connected: PostgreSQL ${probe.identity.version}.`);
      // Another database cannot be put into a URL that lies elsewhere.
      if (hasReference(url)) return { url, probe };
      return await chooseDatabase(context, { url, probe, connection }, asking);
    } catch (error) {
      if (given.url) throw error;
      tellFailure(context, error);
    }
  }
}

/** What a person answered, or may. */
interface Login {
  readonly host: string;
  readonly port: string;
  readonly user: string;
  readonly database: string;
  readonly password?: string;
}

async function askForLogin(before: Login, asking: Asking): Promise<Login> {
  const host = await input({ message: "Host", default: before.host }, asking);
  const port = await input({ message: "Port", default: before.port, validate: isPort }, asking);
  const user = await input({ message: "User", default: before.user }, asking);
  const secret = await password({ message: "Password", mask: true }, asking);
  if (secret) keepSecret(secret);
  const database = await input({ message: "Database", default: before.database }, asking);
  return { host, port, user, database, password: secret };
}

function urlOf({ host, port, user, database, password: secret }: Login): string {
  const login = `${encodeURIComponent(user)}${secret ? `:${encodeURIComponent(secret)}` : ""}`;
  return `postgres://${login}@${host.includes(":") ? `[${host}]` : host}:${port}/${encodeURIComponent(database)}`;
}

/** Offers the other databases of the server when the chosen one has no tables. */
async function chooseDatabase(
  context: CliContext,
  found: Reached & { readonly connection: Connection },
  asking: Asking,
): Promise<Reached> {
  const others = found.probe.databases.filter((name) => name !== found.connection.database);
  if (found.probe.tables.length > 0 || others.length === 0) return found;
  const choices = [found.connection.database, ...others].map((name) => ({ name, value: name }));
  const database = await select(
    { message: `${found.connection.database} has no tables. Which database?`, choices },
    asking,
  );
  const url = new URL(found.url);
  url.pathname = `/${encodeURIComponent(database)}`;
  return { url: url.href, probe: await probeDatabase({ ...found.connection, database }, context) };
}

async function askForTables(context: CliContext, probe: Probe, asking: Asking): Promise<Partial<WantedJob>> {
  const total = probe.tables.reduce((sum, table) => sum + table.bytes, 0);
  context.output.note(
    `${probe.identity.database} has ${formatPlural(probe.tables.length, "table")}, ${formatBytes(total)}.`,
  );
  if (probe.tables.length === 0) return {};
  const all = await confirm({ message: "Back up all tables, also those that come later?", default: true }, asking);
  if (all) return {};
  const choices = probe.tables.map((table) => ({
    name: `${table.schema}.${table.name}  ${formatPlural(table.estimatedRows, "row")}, ${formatBytes(table.bytes)}`,
    value: `${quoted(table.schema)}.${quoted(table.name)}`,
    checked: true,
  }));
  const message = "Take out the tables that are not wanted";
  // Behind a question for what is to go, the names of what stays would be read the other way round; and there may be hundreds.
  const renderSelectedChoices = (stay: readonly unknown[]) =>
    `${formatCount(stay.length)} of ${formatPlural(choices.length, "table")} stay`;
  const theme = { style: { renderSelectedChoices } };
  const kept = await checkbox({ message, choices, pageSize: 15, required: true, theme }, asking);
  const left = choices.map(({ value }) => value).filter((value) => !kept.includes(value));
  return left.length > 0 ? { exclude: left } : {};
}

function quoted(name: string): string {
  return /^[^".*,\s]+$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

async function askForSchedule(context: CliContext, asking: Asking): Promise<string | undefined> {
  const choices = [
    { name: "every night at 02:00", value: "0 2 * * *" },
    { name: "every Sunday at 02:00", value: "0 2 * * sun" },
    { name: "every hour", value: "0 * * * *" },
    { name: "my own cron expression", value: "own" },
    { name: "no schedule", value: "none" },
  ];
  const chosen = await select({ message: "When shall it run?", choices }, asking);
  if (chosen === "none") return undefined;
  const check = (text: string) => problemOfCron(text) ?? true;
  const full = chosen === "own" ? await input({ message: "Cron expression", validate: check }, asking) : chosen;
  const runs = nextFirings({ full }, context.now(), 5);
  context.output.note(`Next runs: ${runs.map(({ at }) => formatTime(at.toISOString())).join(", ")}`);
  return full;
}

interface Summary {
  readonly probe: Probe;
  readonly encryption: string;
}

function summarise(context: CliContext, wanted: WantedJob, { probe, encryption }: Summary): void {
  const { identity } = probe;
  context.output.note("");
  context.output.note(`  database      ${identity.database} at ${identity.host}:${identity.port} as ${identity.user}`);
  context.output.note(`  tables        ${wanted.exclude ? `all but ${wanted.exclude.join(", ")}` : "all"}`);
  const places = wanted.destinations.map((destination) => destinationNameOf(destination as unknown as JobDestination));
  context.output.note(`  destinations  ${places.join(", ")}`);
  context.output.note(`  encryption    ${encryption}`);
  context.output.note(`  schedule      ${wanted.full ?? "none"}`);
}
