import type { ArgumentSpec, CommandSpec, OptionSpec } from "./command.ts";
import { jobCommand } from "./commands/job.ts";

const job: ArgumentSpec = { name: "<job>", description: "name of a job, or path of a job file" };
/** Written as optional only because `--due` will stand for them. */
const jobs: ArgumentSpec = { name: "[job...]", description: "names of jobs, or paths of job files" };
const optionalSnapshot: ArgumentSpec = {
  name: "[snapshot]",
  description: "id, unique prefix of one, latest, or a time",
};
const snapshot: ArgumentSpec = { ...optionalSnapshot, isNeeded: true };
const yes: OptionSpec = { flags: "-y, --yes", description: "answer every question with yes" };
const from: OptionSpec = { flags: "--from <destination>", description: "read from this destination only" };
const identity: OptionSpec = { flags: "--identity <file>", description: "secret key that opens encrypted snapshots" };
const tables: OptionSpec = { flags: "--tables <patterns>", description: "only these tables: public.orders,crm.*" };
const database: OptionSpec = { flags: "--database <name>", description: "which database of a job that has several" };
const where: OptionSpec = {
  flags: "--where <condition>",
  description: "only rows with: id in (1, 2) and paid is null",
};
const thaw: readonly OptionSpec[] = [
  {
    flags: "--thaw [days]",
    description: "ask for volumes that lie in an archive, to be readable so long (default: 7)",
  },
  { flags: "--thaw-tier <tier>", description: "how fast: expedited, standard or bulk" },
  { flags: "--wait", description: "wait for hours until they are thawed, then restore" },
];
const at: OptionSpec = { flags: "--at <time>", description: "the newest snapshot not younger than this time" };

/** Every command, in the order in which help shows them. Data only: nothing here loads a command's code. */
export const commandTable: readonly CommandSpec[] = [
  jobCommand,
  {
    name: "run",
    summary: "back up now",
    arguments: [jobs],
    options: [
      { flags: "--full", description: "make a full snapshot" },
      { flags: "--incremental", description: "store only what changed since the last snapshot" },
      {
        flags: "--server-hash",
        description: "with --incremental: let the server hash what must else be read again, as after its restart",
      },
      { flags: "--due", description: "only what a schedule says is due (not available yet)" },
    ],
    examples: ["rowkeep run shop", "rowkeep run ./jobs/shop.yaml ./jobs/crm.yaml --json"],
    load: async () => (await import("./commands/run.ts")).run,
  },
  {
    name: "export",
    summary: "back up a database once into one file, without a job",
    arguments: [
      { name: "<url>", description: "the database: postgres://user@host/name, or '${env:NAME}', 'file:path'" },
      {
        name: "<file>",
        description:
          "the file to write, or a folder for one with a new name: here, or s3://…, sftp://… (docs/destinations.md); - for stdout",
      },
    ],
    options: [tables, { flags: "--parallel <n>", description: "connections that read rows" }],
    examples: [
      "rowkeep export postgres://me@db.example/shop shop.rowkeep",
      "rowkeep export '${env:SHOP_URL}' 's3://bucket/exports/shop.rowkeep?region=eu-west-3'",
      "rowkeep export '${env:SHOP_URL}' - | age -r age1… > shop.rowkeep.age",
    ],
    load: async () => (await import("./commands/export.ts")).exportFile,
  },
  {
    name: "import",
    summary: "restore such a file into a database",
    arguments: [
      { name: "<file>", description: "a file that export wrote, here or at a destination" },
      { name: "<url>", description: "the database to write to, written as in export" },
    ],
    options: [
      tables,
      { flags: "--create", description: "create schema and tables in an empty database" },
      { flags: "--plan", description: "show what would be done, change nothing" },
      { flags: "--owners", description: "give objects to the owners that they had (with --create)" },
      { flags: "--grants", description: "restore rights too (with --create)" },
      { flags: "--parallel <n>", description: "connections that write rows" },
      yes,
    ],
    load: async () => (await import("./commands/import.ts")).importFile,
  },
  {
    name: "list",
    summary: "show the snapshots of a job",
    arguments: [job],
    options: [from, identity],
    load: async () => (await import("./commands/list.ts")).list,
  },
  {
    name: "show",
    summary: "show one snapshot and its tables",
    arguments: [job, snapshot],
    options: [database, at, from, identity],
    load: async () => (await import("./commands/show.ts")).show,
  },
  {
    name: "cat",
    summary: "write rows of one table of a snapshot to stdout",
    arguments: [
      job,
      snapshot,
      { name: "[table]", description: "public.orders; a partitioned table gives all its rows", isNeeded: true },
    ],
    options: [
      where,
      at,
      { flags: "--columns <names>", description: "only these columns, in this order: id,name" },
      { flags: "--format <format>", description: "tsv (as stored, the default), csv or json" },
      database,
      from,
      identity,
    ],
    examples: [
      'rowkeep cat shop latest public.orders --where "id in (7, 8)"',
      "rowkeep cat shop latest customers --columns id,email --format csv >customers.csv",
    ],
    load: async () => (await import("./commands/cat.ts")).cat,
  },
  {
    name: "restore",
    summary: "put tables or a whole database back",
    arguments: [job, optionalSnapshot],
    options: [
      tables,
      where,
      { flags: "--mode <mode>", description: "what becomes of such rows: replace (default), insert-missing or upsert" },
      at,
      { flags: "--to <target>", description: "primary, dr or the url of a database (default: primary)" },
      { flags: "--target-db <name>", description: "name of the database that must be there, as a check" },
      database,
      { flags: "--create", description: "create schema and tables in an empty database" },
      { flags: "--plan", description: "show what would be done, change nothing" },
      { flags: "--allow-conversion", description: "restore into columns of another type where the server converts" },
      { flags: "--ignore-missing", description: "leave out tables that the target does not have" },
      { flags: "--no-safety", description: "take no safety snapshot of what is replaced" },
      { flags: "--owners", description: "give objects to the owners that they had (with --create)" },
      { flags: "--grants", description: "restore rights too (with --create)" },
      from,
      identity,
      ...thaw,
      { flags: "--files-to <folder>", description: "put the files of the snapshot below this folder" },
      { flags: "--files-in-place", description: "put the files of the snapshot where they were" },
      { flags: "--parallel <n>", description: "connections that write rows" },
      yes,
    ],
    examples: [
      "rowkeep restore shop --plan",
      "rowkeep restore shop latest --tables public.orders --yes",
      "rowkeep restore shop 20261121T02 --to postgres://me@host/empty --create",
      'rowkeep restore shop latest --tables orders --where "id in (7, 8)" --mode upsert',
    ],
    load: async () => (await import("./commands/restore.ts")).restore,
  },
  {
    name: "undo",
    summary: "put back what the last restore replaced",
    arguments: [job],
    options: [
      { flags: "--to <target>", description: "the last restore into this: primary, dr or the url of a database" },
      database,
      identity,
      ...thaw,
      { flags: "--plan", description: "show what would be done, change nothing" },
      yes,
    ],
    load: async () => (await import("./commands/undo.ts")).undo,
  },
  {
    name: "compare",
    summary: "find differing rows between two sites or snapshots",
    arguments: [{ ...job, name: "[job]" }, optionalSnapshot],
    options: [
      { flags: "--with <snapshot>", description: "compare with this snapshot instead of the dr site" },
      { ...at, description: "compare with the newest snapshot not younger than this time" },
      tables,
      { flags: "--rows", description: "list the keys of differing rows" },
      { flags: "--count", description: "only count the rows of each table" },
      { flags: "--all", description: "every job that has a dr site" },
      database,
      from,
      identity,
      { flags: "--parallel <n>", description: "connections that read each site" },
    ],
    examples: [
      "rowkeep compare shop",
      "rowkeep compare shop --with latest --tables public.orders --rows",
      "rowkeep compare shop 20261121T02 --with 20261122T02",
    ],
    snapshotOption: "with",
    load: async () => (await import("./commands/compare.ts")).compare,
  },
  {
    name: "diff",
    summary: "find the tables and rows in which two snapshots differ",
    arguments: [
      job,
      { name: "<left>", description: "the one snapshot, or its time" },
      { name: "<right>", description: "the other snapshot, or its time" },
    ],
    options: [
      { ...tables, flags: "--table, --tables <patterns>" },
      { flags: "--rows", description: "list the keys of differing rows" },
      database,
      from,
      identity,
    ],
    examples: ["rowkeep diff shop 20261121T02 latest", "rowkeep diff shop 20261121T02 latest --table orders --rows"],
    load: async () => (await import("./commands/diff.ts")).diff,
  },
  {
    name: "verify",
    summary: "re-read a snapshot and check every hash",
    arguments: [job, optionalSnapshot],
    options: [
      at,
      { flags: "--all", description: "every snapshot of the job" },
      { flags: "--sample <share>", description: "a share of the chunks, like 5%" },
      { flags: "--drill", description: "restore into a scratch database, compare, drop it" },
      { flags: "--drill-url <url>", description: "where to make the scratch database (default: the job's server)" },
      { flags: "--parallel <n>", description: "connections that a drill writes and reads rows with" },
      database,
      from,
      identity,
    ],
    examples: [
      "rowkeep verify shop --all",
      "rowkeep verify shop latest --drill --drill-url postgres://me@spare.example/postgres",
    ],
    load: async () => (await import("./commands/verify.ts")).verify,
  },
  {
    name: "prune",
    summary: "remove the snapshots that the retention does not keep",
    arguments: [job],
    options: [
      { flags: "--dry-run", description: "say what would go and why, remove nothing" },
      { flags: "--accept-missing", description: "go on although snapshots that were stored are no longer there" },
      identity,
    ],
    examples: ["rowkeep prune shop --dry-run"],
    load: async () => (await import("./commands/prune.ts")).prune,
  },
  {
    name: "pin",
    summary: "keep a snapshot whatever the retention says",
    arguments: [job, snapshot],
    options: [at, database],
    load: async () => (await import("./commands/pin.ts")).pin,
  },
  {
    name: "unpin",
    summary: "leave a snapshot to the retention again",
    arguments: [job, snapshot],
    options: [at, database],
    load: async () => (await import("./commands/pin.ts")).unpin,
  },
  {
    name: "acknowledge",
    summary: "say that tables which shrank or vanished are as they should be",
    arguments: [job],
    options: [identity],
    load: async () => (await import("./commands/acknowledge.ts")).acknowledge,
  },
  {
    name: "sync",
    summary: "copy snapshots to a destination that misses them",
    arguments: [job],
    options: [
      { flags: "--from <destination>", description: "copy from this destination only" },
      { flags: "--dry-run", description: "show what is missing where, copy nothing" },
      { flags: "--all", description: "read every manifest, also those that look as they did when they were last read" },
    ],
    examples: ["rowkeep sync shop --dry-run", "rowkeep sync shop --from s3"],
    load: async () => (await import("./commands/sync.ts")).sync,
  },
  {
    name: "status",
    summary: "show the state of all jobs",
    options: [
      { flags: "--max-age <duration>", description: "exit 3 when a job's last success is older: 26h, 2d" },
      { flags: "--prometheus", description: "metrics for Prometheus (not available yet)" },
      { flags: "--html <file>", description: "a page with charts (not available yet)" },
    ],
    load: async () => (await import("./commands/status.ts")).status,
  },
  {
    name: "history",
    summary: "show past runs with durations, sizes and errors",
    arguments: [job],
    options: [{ flags: "--limit <n>", description: "at most so many runs (default: 20)" }],
    load: async () => (await import("./commands/history.ts")).history,
  },
  { name: "schedule", summary: "preview, install or remove the schedule of a job" },
  { name: "daemon", summary: "run schedules in the foreground" },
  {
    name: "doctor",
    summary: "try every connection, right and destination of a job",
    arguments: [job],
    examples: ["rowkeep doctor shop", "rowkeep doctor ./shop.yaml --json"],
    load: async () => (await import("./commands/doctor.ts")).doctor,
  },
  {
    name: "key",
    summary: "make encryption keys",
    commands: [
      {
        name: "create",
        summary: "make a key pair and a recovery kit to print",
        arguments: [{ name: "[file]", description: "where the secret key goes (default: rowkeep.key)" }],
        options: [
          { flags: "--kit <file>", description: "where the recovery kit goes (default: beside the key)" },
          { flags: "--no-kit", description: "write no recovery kit" },
        ],
        examples: ["rowkeep key create ~/.rowkeep.key"],
        load: async () => (await import("./commands/key.ts")).keyCreate,
      },
    ],
  },
  {
    name: "demo",
    summary: "the whole tour on an embedded database",
    options: [{ flags: "--dir <folder>", description: "where to leave the result (default: ./rowkeep-demo)" }],
    load: async () => (await import("./commands/demo.ts")).demo,
  },
  {
    name: "completion",
    summary: "print a completion script: bash, zsh, fish, pwsh",
    arguments: [{ name: "<shell>", description: "bash, zsh, fish or pwsh" }],
    examples: ['eval "$(rowkeep completion bash)"'],
    load: async () => (await import("./commands/completion.ts")).completion,
  },
];

/** The options that every command takes. */
export const globalOptions: readonly OptionSpec[] = [
  { flags: "--json", description: "JSON lines on stdout; the last one is the result or the error" },
  { flags: "-q, --quiet", description: "say only warnings and errors" },
  { flags: "-v, --verbose", description: "say more" },
  { flags: "--no-color", description: "no colours" },
  { flags: "--home <folder>", description: "folder of jobs and state (default: ROWKEEP_HOME)" },
];

/** Tells whether a command does its work in this version. */
export function isAvailable(command: CommandSpec): boolean {
  return command.load !== undefined || (command.commands ?? []).some(isAvailable);
}
