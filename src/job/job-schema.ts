import { isIP } from "node:net";
import { z } from "zod";
import { parseByteSize } from "../base/byte-size.ts";

// Every field is described for the people who see it in an editor: the JSON Schema is generated from this file.

// A file is checked once in a process: a function that is compiled for that takes longer than it saves.
z.config({ jitless: true });

const text = (description: string) => z.string().min(1).describe(description);
const secret = (description: string) =>
  z.string().min(1).describe(`${description} Better not in clear: \${env:NAME}, file:path or cmd:command.`);
/** What SDKs take for the address of a service; they throw anything for what they do not. */
export const isHttpAddress = (text: string) => /^https?:\/\//i.test(text) && URL.canParse(text);
export const HTTP_ADDRESS_WORDS = "must begin with https:// or http://";
/** No host name can be made of an IP address by putting a label in front of it. */
const hasIpAddress = (endpoint = "") =>
  URL.canParse(endpoint) && isIP(new URL(endpoint).hostname.replace(/^\[|\]$/g, "")) !== 0;
const address = (description: string) => text(description).refine(isHttpAddress, HTTP_ADDRESS_WORDS);
const flag = (description: string) => z.boolean().describe(description);
const count = (description: string) => z.int().min(0).describe(description);

const DURATION = /^\d+(ms|s|m|h|d|w)$/;
const duration = (description: string) =>
  z.string().regex(DURATION, 'must be a number with a unit: "30d", "12h", "45m"').describe(description);

const TLS = z.enum(["verify-full", "ca", "insecure", "off"]).describe("How the server's certificate is checked.");

const source = z
  .strictObject({
    url: secret("postgres:// sqlserver:// mysql:// or sqlite: address of the database.").optional(),
    engine: z.enum(["postgres", "sqlserver", "mysql", "mariadb", "sqlite"]).describe("Instead of a url.").optional(),
    host: text("Host name, address, or folder of a Unix socket.").optional(),
    port: z.int().min(1).max(65535).describe("Port of the server.").optional(),
    user: secret("Login.").optional(),
    password: secret("Password.").optional(),
    database: secret("Database that is backed up unless databases names others.").optional(),
    tls: TLS.optional(),
    ca: text("Path of a PEM file with the certificate authority.").optional(),
  })
  .describe("The database that is backed up.");

/** Below this a transfer could not be told from one that stands still. */
const LEAST_BANDWIDTH = 10_000;

const retention = z
  .strictObject({
    keepLast: count("Newest snapshots that stay.").optional(),
    keepWithin: duration("All that are at most so much older than the newest stay.").optional(),
    keepHourly: count("Hours of which the last snapshot stays.").optional(),
    keepDaily: count("Days of which the last snapshot stays.").optional(),
    keepWeekly: count("Weeks of which the last snapshot stays.").optional(),
    keepMonthly: count("Months of which the last snapshot stays.").optional(),
    keepYearly: count("Years of which the last snapshot stays.").optional(),
  })
  .describe("Which snapshots stay; left out: all.");
/** Above it object stores would take a volume in parts only. */
const isVolumeSize = (text: string) => {
  const bytes = parseByteSize(text) ?? 0;
  return bytes >= 1e6 && bytes <= 4 * 1024 ** 3;
};

/** What every destination has. */
const common = {
  name: text("How the destination is called in --from and in results.").optional(),
  bandwidth: z
    .string()
    .regex(/^\d{1,9}(\.\d{1,6})? ?([KMG]i?)?B$/i, 'must be a size with a unit: "10MB", "800kB", "2MiB"')
    .refine((text) => (parseByteSize(text) ?? LEAST_BANDWIDTH) >= LEAST_BANDWIDTH, "must be at least 10kB")
    .describe("Bytes per second that all transfers together may move, to and from it: 10MB. Left out: no limit.")
    .optional(),
  retention: retention.optional().describe("Instead of the job's retention, at this destination."),
};

export const destinationSchema = z
  .discriminatedUnion("type", [
    z.strictObject({ type: z.literal("local"), ...common, path: text("Folder; relative to the job file.") }),
    z.strictObject({
      type: z.literal("s3"),
      ...common,
      bucket: text("Bucket."),
      prefix: text("Key prefix in the bucket.").optional(),
      region: text("Region.").optional(),
      endpoint: address("Address of an S3-compatible service.").optional(),
      pathStyle: flag("Address the bucket in the path instead of the host name.").optional(),
      profile: text("Profile of the AWS configuration files.").optional(),
      accessKeyId: secret("Access key.").optional(),
      secretAccessKey: secret("Secret key.").optional(),
      sessionToken: secret("Session token.").optional(),
      storageClass: text(
        "Of volumes only, what else is stored stays readable at once: STANDARD_IA, GLACIER, DEEP_ARCHIVE …",
      ).optional(),
    }),
    z.strictObject({
      type: z.literal("azure"),
      ...common,
      container: text("Container."),
      prefix: text("Name prefix in the container.").optional(),
      connection: secret("Connection string.").optional(),
      account: text("Storage account, with sas or, without, for the managed identity of the machine.")
        .regex(/^[\w-]+$/, "must be the name of a storage account")
        .optional(),
      sas: secret("Shared access signature.").optional(),
      clientId: text("Which one of the machine's managed identities; default: AZURE_CLIENT_ID or its own.").optional(),
      endpoint: address("Address of the account's blobs; default: https://<account>.blob.core.windows.net.").optional(),
      tier: text("Of volumes only, what else is stored stays readable at once: Hot, Cool, Cold or Archive.").optional(),
    }),
    z.strictObject({
      type: z.literal("gcs"),
      ...common,
      bucket: text("Bucket."),
      prefix: text("Name prefix in the bucket.").optional(),
      keyFile: text("Path of a service account's key file; default: application default credentials.").optional(),
      endpoint: text("Address of a compatible service.").optional(),
      storageClass: text("Of volumes only: NEARLINE, COLDLINE, ARCHIVE …").optional(),
    }),
    z.strictObject({
      type: z.literal("ftp"),
      ...common,
      host: text("Host."),
      port: z.int().min(1).max(65535).optional(),
      path: text("Folder on the server."),
      user: secret("Login."),
      password: secret("Password.").optional(),
      tls: z.enum(["explicit", "implicit", "off"]).optional(),
      ca: text("Path of a PEM file with the certificate authority.").optional(),
    }),
    z.strictObject({
      type: z.literal("sftp"),
      ...common,
      host: text("Host."),
      port: z.int().min(1).max(65535).optional(),
      path: text("Folder on the server."),
      user: secret("Login."),
      password: secret("Password.").optional(),
      privateKey: secret("Private key, usually file:~/.ssh/id_ed25519.").optional(),
      passphrase: secret("Passphrase of the private key.").optional(),
      agent: flag("Use the SSH agent.").optional(),
      hostKey: text("Fingerprint of the server's key: SHA256:…, as ssh-keygen -lf prints it."),
    }),
  ])
  .refine((one) => one.type !== "s3" || !one.pathStyle || !one.bucket.startsWith("arn:"), {
    path: ["bucket"],
    message: "an ARN cannot stand in the path of an address: leave pathStyle out",
  })
  .refine((one) => one.type !== "s3" || !one.bucket.startsWith("arn:") || !hasIpAddress(one.endpoint), {
    path: ["bucket"],
    message: "an ARN cannot stand in front of an IP address: give the endpoint a host name, or leave it out",
  })
  .describe("One place that gets every snapshot.");

const cron = z.string().min(1).describe('A cron expression of five fields, in quotes: "0 2 * * sun".');

const schedule = z
  .strictObject({
    full: cron.optional(),
    incremental: cron.optional(),
    timezone: text("IANA time zone; default: the machine's.").optional(),
    until: z
      .string()
      .regex(/^\d{4}-\d{2}-\d{2}$/, "must be a date: 2027-12-31")
      .describe("Last day of the schedule.")
      .optional(),
    missed: z.enum(["run", "skip"]).describe("What happens to a firing that no machine was up for.").optional(),
    node: text("Machine that runs the job while it is up.").optional(),
  })
  .describe("When the job runs by itself.");

const tables = z
  .strictObject({
    include: z.array(text("Pattern: public.*, orders")).optional(),
    exclude: z.array(text("Pattern: *.audit_*")).optional(),
    schemaOnly: z.array(text("Pattern: definition without rows")).optional(),
  })
  .describe("Which tables are kept; left out: all.");

/** What the name of a job may be: it names files and folders. */
export const JOB_NAME = /^[0-9A-Za-z][0-9A-Za-z._-]{0,79}$/;
export const JOB_NAME_WORDS = "must begin with a letter or digit and hold only letters, digits, . _ -, 80 at most";

/** Says why a new job cannot have this name: it would be taken for a path, or name no folder of its own on Windows. */
export function faultOfNewName(name: string): string | undefined {
  if (!JOB_NAME.test(name)) return JOB_NAME_WORDS;
  if (/\.ya?ml$/.test(name)) return "must not end in .yaml or .yml, as paths of job files do";
  if (name.endsWith(".")) return "must not end in a dot, which Windows leaves out";
  return DEVICE.test(name) ? "must not be that of a device of Windows" : undefined;
}

/** https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file: with anything behind a dot, too. */
const DEVICE = /^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)/i;

export const jobSchema = z
  .strictObject({
    version: z.literal(1).describe("Version of this format."),
    name: z
      .string()
      .regex(JOB_NAME, JOB_NAME_WORDS)
      .describe("Name of the job; left out: made from the database and the first destination.")
      .optional(),
    enabled: flag("false: the job is off.").optional(),
    source,
    databases: z
      .union([z.literal("all"), z.array(text("Database")).min(1)])
      .describe("Databases of the server; default: the one in the url.")
      .optional(),
    tables: tables.optional(),
    files: z.array(text("Path")).describe("Files and directories kept in the same snapshot.").optional(),
    mode: z.enum(["logical", "native"]).describe("logical: rows and definitions.").optional(),
    schedule: schedule.optional(),
    destinations: z.array(destinationSchema).min(1).describe("All of them get every snapshot."),
    naming: z.enum(["timestamped", "overwrite"]).describe("overwrite: one snapshot that each run replaces.").optional(),
    retention: retention.optional(),
    compression: z
      .strictObject({
        codec: z.enum(["zstd", "gzip", "none"]).optional(),
        level: z.int().min(1).max(19).describe("zstd 1–19, gzip 1–9.").optional(),
      })
      .optional(),
    encryption: z
      .strictObject({
        recipients: z
          .array(text("Public key: age1…"))
          .min(1)
          .describe("Any of their secret keys opens the snapshots.")
          .optional(),
        identity: secret("Secret key for restores; the machine that backs up does not need it.").optional(),
        passphrase: secret("Instead of recipients.").optional(),
      })
      .describe("Snapshots are encrypted in the age format: to public keys, or with a passphrase.")
      .optional(),
    dr: z
      .strictObject({
        url: secret("Address of the disaster-recovery site."),
        tls: TLS.optional(),
        active: z.union([z.boolean(), z.strictObject({ query: text("select …") })]).optional(),
        autoRestore: flag("Every new snapshot of the primary is restored to dr.").optional(),
        alwaysBackupPrimary: flag("Back up the primary even while dr is active.").optional(),
      })
      .describe("The disaster-recovery site.")
      .optional(),
    safety: z
      .strictObject({
        maxShrink: z
          .string()
          .regex(/^(100|\d{1,2})%$/, 'must be a percentage up to 100%: "50%"')
          .describe(
            "A table that shrank more stops prune and automatic restores; one of fewer than 20 rows when nothing is left of it.",
          )
          .optional(),
      })
      .optional(),
    failures: z.strictObject({ disableAfter: z.int().min(1).describe("Failures in a row.") }).optional(),
    notify: z
      .strictObject({
        webhook: secret("Address.").optional(),
        email: text("Address.").optional(),
        healthchecks: secret("Address.").optional(),
        on: z.array(z.enum(["failure", "warning", "disabled", "success"])).optional(),
      })
      .optional(),
    volumeSize: z
      .string()
      .refine(isVolumeSize, 'must be a size from 1MB to 4GiB: "128MiB"')
      .describe("Size of one stored file, default 128MiB; four of them lie on the local disk while a run is under way.")
      .optional(),
    parallel: z.int().min(1).max(32).describe("Streams that read one database; default 2.").optional(),
  })
  .describe("A rowkeep job.");

/** What a job file says, checked, with secrets still unresolved. */
export type JobFile = Readonly<z.infer<typeof jobSchema>>;
export type JobDestination = JobFile["destinations"][number];
