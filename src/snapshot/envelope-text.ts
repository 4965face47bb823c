import { hash } from "node:crypto";
import { archiveError } from "../archive/archive-error.ts";
import { checkJson } from "./check-json.ts";
import type { Volume } from "./manifest.ts";
import { volumeShape } from "./manifest-shape.ts";
import type { RetentionFacts } from "./retention-facts.ts";
import { isSealIntact, sealJson } from "./sealed-json.ts";
import { boolean, integer, list, oneOf, optional, record, text } from "./shape.ts";

/** Name of the envelope below the folder of an encrypted snapshot. */
export const ENVELOPE_NAME = "envelope.json";
export const MAX_ENVELOPE_BYTES = 64 * 1024 * 1024;

/**
 * What is known of an encrypted snapshot without its key: whose key opens it, and hashes that tell a wrong key from a
 * damaged file and let a machine without the key check volumes and copy them. Anybody could have written it: nothing that is
 * restored depends on it.
 */
export interface Envelope {
  readonly format: "rowkeep-envelope";
  readonly version: 1;
  readonly id: string;
  /** Ids of the keys that open it, see `keyIdOf`; empty with a passphrase. */
  readonly keyIds: readonly string[];
  readonly passphrase: boolean;
  /** `key.age` as it is stored. */
  readonly key: StoredWhole;
  /** `manifest.json.age` as it is stored. */
  readonly manifest: StoredWhole;
  readonly volumes: readonly Volume[];
  /** Missing in snapshots of early versions. */
  readonly retention?: RetentionFacts | undefined;
}

/** An envelope with the lower-case hex SHA-256 of its bytes, which tells whether it is one that this machine wrote. */
export interface ReadEnvelope extends Envelope {
  readonly sha256: string;
}

export interface StoredWhole {
  readonly size: number;
  readonly sha256: string;
}

const whole = record({ size: integer(), sha256: text(64, /^[0-9a-f]{64}$/) });
const envelopeShape = record({
  format: oneOf("rowkeep-envelope"),
  version: oneOf(1),
  id: text(64),
  keyIds: list(text(16, /^[0-9a-f]{16}$/), 1000),
  passphrase: boolean,
  key: whole,
  manifest: whole,
  volumes: list(volumeShape),
  retention: optional(
    record({
      kind: oneOf("full", "incremental"),
      createdAt: text(40, /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?Z$/),
      server: text(32, /^[0-9a-f]{32}$/),
      references: list(text(64), 100_000),
      isSafety: boolean,
      hasAnomalies: boolean,
    }),
  ),
});

export function renderEnvelope(envelope: Envelope): Buffer {
  return sealJson(envelope);
}

/** Reads an envelope from bytes that may be hostile; fails with kind `archive`, `invalid-manifest`. */
export function parseEnvelope(bytes: Buffer, name: string): ReadEnvelope {
  const json = bytes.toString("utf8");
  let value: unknown;
  try {
    value = isSealIntact(bytes) && checkJson(json, 8) === undefined ? JSON.parse(json) : undefined;
  } catch {
    value = undefined;
  }
  const problem = envelopeShape(value);
  if (problem !== undefined) throw archiveError(`cannot read ${name}: it is damaged`, "invalid-manifest");
  return { ...(value as Envelope), sha256: hash("sha256", bytes) };
}
