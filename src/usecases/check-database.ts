import { OperationalError } from "../base/errors.ts";
import type { Connection } from "../drivers/driver.ts";
import type { Inspection } from "../drivers/inspection.ts";
import { inspectDatabase } from "../drivers/open-driver.ts";
import { isLocalHost } from "../job/connection.ts";
import type { Job } from "../job/read-job.ts";
import { chooseTable } from "../plan/table-patterns.ts";
import { type Check, Checks, type Finding, warningOf } from "./check.ts";

const SKEW_MS = 60_000;
const SHOWN = 5;

export interface CheckedDatabase {
  readonly checks: readonly Check[];
  /** Missing when there was no connection. */
  readonly inspection: Inspection | undefined;
}

/** Tries what a backup of one database needs. Failures are results. */
export async function checkDatabase(
  connection: Connection,
  job: Pick<Job, "tables">,
  { signal }: { readonly signal: AbortSignal },
): Promise<CheckedDatabase> {
  const checks = new Checks(connection.database, signal);
  let inspection: Inspection | undefined;
  await checks.try("connection", async () => {
    inspection = await inspectDatabase(connection, { choose: chooseTable(job.tables ?? {}), signal });
    const { identity } = inspection;
    return `PostgreSQL ${identity.version} at ${identity.host}:${identity.port} as ${identity.user}${identity.isReplica ? ", a replica" : ""}`;
  });
  if (!inspection) return { checks: checks.list, inspection };
  for (const [name, finding] of findingsOf(inspection, connection)) await checks.try(name, async () => finding);
  return { checks: checks.list, inspection };
}

function findingsOf(found: Inspection, connection: Connection): readonly (readonly [string, Finding])[] {
  return [
    ["version", versionFinding(found)],
    ["tls", tlsFinding(found, connection)],
    ["pooler", poolerFinding(found)],
    ["clock", clockFinding(found)],
    [
      "select",
      deniedFinding(
        found.deniedTables,
        `${found.tables} ${found.tables === 1 ? "table" : "tables"} can be read`,
        "tables",
      ),
    ],
    ["sequences", deniedFinding(found.deniedSequences, "all sequences can be read", "sequences")],
    ["row security", filteredFinding(found)],
    ["large objects", largeObjectFinding(found)],
    ["drill", drillFinding(found)],
  ];
}

function versionFinding({ identity, isSupported, isUntried }: Inspection): Finding {
  if (!isSupported) return failed(`version ${identity.version} is older than 13`, "Upgrade the server.", "unsupported");
  if (isUntried) return warningOf(`version ${identity.version} is newer than 18, the newest that was tried`);
  return `version ${identity.version} is one that was tried`;
}

function tlsFinding({ tls, tlsProtocol }: Inspection, { host }: Connection): Finding {
  if (tlsProtocol !== undefined && tls !== "insecure") return `encrypted by ${tlsProtocol}, tls: ${tls}`;
  if (tlsProtocol !== undefined) {
    return warningOf(
      `encrypted by ${tlsProtocol}, but nobody checks whose server it is (tls: insecure)`,
      "Set tls: verify-full, with ca: for a certificate authority of your own.",
    );
  }
  if (isLocalHost(host)) return "not encrypted: the server is this machine";
  return warningOf("not encrypted: everybody on the way can read password and rows", "Set tls: verify-full.");
}

function poolerFinding({ isPooled }: Inspection): Finding {
  if (!isPooled) return "the connection leads to the server itself";
  return warningOf(
    "a pooler stands between: a long backup may meet its timeouts, and parallel streams its limits",
    "Name the server itself as the job's source where you can.",
  );
}

function clockFinding({ clockSkewMs }: Inspection): Finding {
  const seconds = Math.round(Math.abs(clockSkewMs) / 1000);
  if (Math.abs(clockSkewMs) < SKEW_MS) return "the server's clock agrees with this machine's";
  return warningOf(
    `the server's clock is ${seconds} s ${clockSkewMs > 0 ? "ahead of" : "behind"} this machine's`,
    "Let both machines take their time from the network (NTP).",
  );
}

function deniedFinding(denied: readonly string[], fine: string, what: string): Finding {
  if (denied.length === 0) return fine;
  const hint = "Let an administrator run the GRANT script, or exclude what is not wanted in the job's tables.";
  return failed(`SELECT is missing on ${denied.length} ${what}: ${shown(denied)}`, hint, "denied");
}

function filteredFinding({ filteredTables }: Inspection): Finding {
  if (filteredTables.length === 0) return "no row security hides rows from this login";
  const hint = "Use a login with BYPASSRLS, or exclude them in the job's tables.";
  return failed(`row security hides rows of ${shown(filteredTables)}`, hint, "row-security");
}

function largeObjectFinding({ largeObjects }: Inspection): Finding {
  if (largeObjects === "none") return "there are none";
  if (largeObjects === "readable") return "they can be read";
  return failed("one or more cannot be read by this login", "Let an administrator run the GRANT script.", "denied");
}

function drillFinding({ canCreateDatabases }: Inspection): Finding {
  if (canCreateDatabases) return "this login can create scratch databases for verify --drill";
  return "this login cannot create scratch databases here: verify --drill needs --drill-url";
}

function failed(message: string, hint: string, code: string): Finding {
  return { status: "failed", message, hint, error: new OperationalError(message, { kind: "database", code, hint }) };
}

function shown(names: readonly string[]): string {
  const more = names.length - SHOWN;
  return `${names.slice(0, SHOWN).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}
