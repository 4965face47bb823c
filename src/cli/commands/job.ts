import type { ArgumentSpec, CommandAction, CommandSpec } from "../command.ts";

const job: ArgumentSpec = { name: "<job>", description: "name of a job, or path of a job file" };
const fromFiles = (name: Exclude<keyof typeof import("./job-files.ts"), never>) => async (): Promise<CommandAction> =>
  (await import("./job-files.ts"))[name];

/** The commands that make, show and change job files. */
export const jobCommand: CommandSpec = {
  name: "job",
  summary: "create, list, show, edit, enable, disable, delete, validate jobs",
  commands: [
    {
      name: "create",
      summary: "make a job: by questions in a terminal, by flags in scripts",
      arguments: [
        { name: "[name]", description: "name of the job; left out: made from the database and the destination" },
      ],
      options: [
        {
          flags: "--url <url>",
          description: "postgres://user:password@host/database; ${env:NAME} keeps it out of the file",
        },
        {
          flags: "--to <destination...>",
          description:
            "folder, s3://bucket/prefix?region=…, gs://, azure://, sftp://user@host/path?hostKey=…, ftp://, ftps://; several are allowed",
        },
        { flags: "--full <cron>", description: 'when to make a full snapshot: "0 2 * * sun"' },
        { flags: "--incremental <cron>", description: 'when to make an incremental one: "0 * * * *"' },
        { flags: "--dr-url <url>", description: "the disaster-recovery site, written as --url is" },
        { flags: "--timezone <zone>", description: "time zone of the schedule" },
        { flags: "--tables <patterns>", description: "only these tables: public.*,crm.orders" },
        { flags: "--exclude <patterns>", description: "not these tables" },
        { flags: "--files <paths>", description: "files and directories kept in the same snapshot" },
        { flags: "--encrypt-to <keys>", description: "public keys (age1…): their owners alone can read the snapshots" },
        { flags: "--codec <codec>", description: "zstd, gzip or none" },
        { flags: "--level <n>", description: "level of the compression" },
        { flags: "--parallel <n>", description: "connections that read rows" },
        { flags: "--no-check", description: "do not try the connection and the destinations" },
        { flags: "--force", description: "replace a job of the same name" },
        { flags: "-y, --yes", description: "ask nothing" },
      ],
      examples: [
        "rowkeep job create",
        'rowkeep job create shop --url "postgres://me@db.example/shop" --to /backups --full "0 2 * * *" --yes',
        "rowkeep job create shop --url '${env:SHOP_URL}' --to 'sftp://me@host/backups?privateKey=file:~/.ssh/id_ed25519&hostKey=SHA256:…' --yes",
      ],
      load: async () => (await import("./job-create.ts")).jobCreate,
    },
    { name: "list", summary: "show all jobs and how they do", load: fromFiles("jobList") },
    { name: "show", summary: "show one job and its next firings", arguments: [job], load: fromFiles("jobShow") },
    {
      name: "edit",
      summary: "change a job in $EDITOR; an invalid one is not saved",
      arguments: [job],
      load: fromFiles("jobEdit"),
    },
    { name: "enable", summary: "switch a job on", arguments: [job], load: fromFiles("jobEnable") },
    { name: "disable", summary: "switch a job off", arguments: [job], load: fromFiles("jobDisable") },
    {
      name: "delete",
      summary: "delete a job file and the passwords that job create stored for it; its snapshots stay",
      arguments: [job],
      options: [{ flags: "-y, --yes", description: "answer every question with yes" }],
      load: fromFiles("jobDelete"),
    },
    {
      name: "validate",
      summary: "check job files",
      arguments: [{ name: "[job...]", description: "names or paths; left out: all jobs" }],
      load: fromFiles("jobValidate"),
    },
  ],
};
