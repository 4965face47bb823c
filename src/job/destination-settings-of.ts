import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { parseByteSize } from "../base/byte-size.ts";
import { messageOf, OperationalError } from "../base/errors.ts";
import type { DestinationSettings } from "../destinations/destination-settings.ts";
import type { JobDestination } from "./job-schema.ts";
import { resolveSecret, type SecretSurroundings } from "./secrets.ts";

/** The fields of destinations that may hold a secret. Everything else is taken as it is written. */
export const SECRET_FIELDS: ReadonlySet<string> = new Set([
  "accessKeyId",
  "secretAccessKey",
  "sessionToken",
  "connection",
  "sas",
  "user",
  "password",
  "privateKey",
  "passphrase",
]);

/**
 * Resolves the secrets of one destination of a job, makes local paths absolute (relative to the job file), reads the
 * certificate authority that `ca` names and the bandwidth as bytes per second. Fails with kind `job`: `secret`, `unreadable-file`.
 */
export async function destinationSettingsOf(
  destination: JobDestination,
  index: number,
  surroundings: SecretSurroundings,
): Promise<DestinationSettings> {
  const { retention: _retention, ...place } = destination;
  const settings: Record<string, unknown> = { ...place };
  for (const [field, value] of Object.entries(place)) {
    if (typeof value !== "string") continue;
    if (SECRET_FIELDS.has(field)) {
      settings[field] = await resolveSecret(value, `destinations[${index}].${field}`, surroundings);
    }
  }
  if (destination.bandwidth !== undefined) settings["bandwidth"] = parseByteSize(destination.bandwidth);
  if (destination.type === "local") settings["path"] = localPath(destination.path, surroundings);
  if (destination.type === "gcs" && destination.keyFile)
    settings["keyFile"] = localPath(destination.keyFile, surroundings);
  if (destination.type === "ftp" && destination.ca)
    settings["ca"] = await readCa(localPath(destination.ca, surroundings), index);
  return settings as unknown as DestinationSettings;
}

async function readCa(path: string, index: number): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new OperationalError(`cannot read destinations[${index}].ca: ${path}: ${messageOf(cause)}`, {
      kind: "job",
      code: "unreadable",
      hint: "Name a PEM file with the certificate authority of the server.",
      cause,
    });
  }
}

function localPath(path: string, { folder, env }: SecretSurroundings): string {
  const home = env["HOME"] ?? env["USERPROFILE"];
  return path.startsWith("~/") && home ? resolve(home, path.slice(2)) : resolve(folder, path);
}
