import { createHash, hash } from "node:crypto";
import { archiveError } from "../archive/archive-error.ts";
import { codeOf } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { type Envelope, ENVELOPE_NAME, MAX_ENVELOPE_BYTES, parseEnvelope, type StoredWhole } from "./envelope-text.ts";
import type { Volume } from "./manifest.ts";
import { ENCRYPTED_MANIFEST_NAME, MANIFEST_NAME, MAX_MANIFEST_BYTES } from "./manifest-text.ts";
import { collectBytes } from "./object-bytes.ts";
import { parseManifest } from "./parse-manifest.ts";
import { fitsId } from "./retention-facts.ts";
import { parseSnapshotId } from "./snapshot-id.ts";
import { KEY_NAME } from "./snapshot-key.ts";

/** A small object of a snapshot as it is stored. */
export interface SmallPart {
  readonly name: string;
  readonly bytes: Buffer;
}

/** All objects of one snapshot: what a copy consists of. No key is needed to know it. */
export interface SnapshotParts {
  readonly volumes: readonly Volume[];
  /** The earlier snapshots that it needs; undefined where nobody without the key can tell. */
  readonly references: readonly NeededSnapshot[] | undefined;
  /** In the order in which they are stored; the last one is the manifest. */
  readonly small: readonly SmallPart[];
}

/** Gives one SHA-256 of all small objects: of copies that have it in common they are the same. */
export function hashOfSmall({ small }: SnapshotParts): string {
  const whole = createHash("sha256");
  for (const { name, bytes } of small) whole.update(`${name} ${bytes.length}\n`).update(bytes);
  return whole.digest("hex");
}

/** An earlier snapshot that a snapshot needs. */
export interface NeededSnapshot {
  readonly id: string;
  /** What it must consist of, where that is known. */
  readonly volumes?: readonly Volume[] | undefined;
}

export interface PartsPlace {
  readonly destination: Destination;
  readonly prefix: string;
  readonly id: string;
  readonly isEncrypted: boolean;
  readonly signal: AbortSignal;
}

/**
 * Reads the small objects of a snapshot and checks what they say of each other: nothing of a damaged one is given.
 * Fails with kind `archive` (`not-found`, `damaged`, `invalid-manifest`, `wrong-size`, `future-version`) or `destination`.
 */
export async function readParts(place: PartsPlace): Promise<SnapshotParts> {
  return place.isEncrypted ? readClosedParts(place) : readPlainParts(place);
}

async function readPlainParts(place: PartsPlace): Promise<SnapshotParts> {
  const bytes = await readSmall(place, MANIFEST_NAME, MAX_MANIFEST_BYTES);
  const name = nameOf(place, MANIFEST_NAME);
  const manifest = parseManifest(bytes, name);
  if (manifest.id !== place.id || manifest.encryption !== undefined) {
    throw archiveError(`cannot read ${name}: it is the manifest of another snapshot`, "invalid-manifest");
  }
  const { volumes, references = [] } = manifest;
  return { volumes, references, small: [{ name: MANIFEST_NAME, bytes }] };
}

/** The envelope tells what belongs to an encrypted snapshot, to those who have no key too. */
async function readClosedParts(place: PartsPlace): Promise<SnapshotParts> {
  const envelopeBytes = await readSmall(place, ENVELOPE_NAME, MAX_ENVELOPE_BYTES);
  const envelope = parseEnvelope(envelopeBytes, nameOf(place, ENVELOPE_NAME));
  if (envelope.id !== place.id) throw damaged(place, ENVELOPE_NAME, "it is the one of another snapshot");
  return {
    volumes: envelope.volumes,
    references: neededOf(envelope),
    small: [
      { name: KEY_NAME, bytes: await readWhole(place, KEY_NAME, envelope.key) },
      { name: ENVELOPE_NAME, bytes: envelopeBytes },
      { name: ENCRYPTED_MANIFEST_NAME, bytes: await readWhole(place, ENCRYPTED_MANIFEST_NAME, envelope.manifest) },
    ],
  };
}

/**
 * Gives what the envelope of a snapshot says that it needs; undefined where it does not tell. A full needs nothing, whether its
 * envelope says so or is of a version that did not.
 */
export function neededOf({ id, retention }: Envelope): readonly NeededSnapshot[] | undefined {
  if (retention === undefined) return parseSnapshotId(id)?.kind === "full" ? [] : undefined;
  return fitsId(retention, id) ? retention.references.map((needed) => ({ id: needed })) : undefined;
}

async function readWhole(place: PartsPlace, name: string, recorded: StoredWhole): Promise<Buffer> {
  const bytes = await readSmall(place, name, Math.min(recorded.size, MAX_MANIFEST_BYTES));
  if (bytes.length === recorded.size && hash("sha256", bytes) === recorded.sha256) return bytes;
  throw damaged(place, name, "its SHA-256 is not the one recorded");
}

async function readSmall(place: PartsPlace, name: string, maxBytes: number): Promise<Buffer> {
  const { destination, prefix, id, signal } = place;
  try {
    return await collectBytes(destination.get(`${prefix}/${id}/${name}`, { signal }), maxBytes, nameOf(place, name));
  } catch (error) {
    if (codeOf(error) !== "not-found") throw error;
    throw archiveError(`cannot read ${nameOf(place, name)}: it is missing`, "not-found");
  }
}

function damaged(place: PartsPlace, name: string, problem: string): Error {
  return archiveError(`cannot read ${nameOf(place, name)}: ${problem}`, "damaged", {
    hint: "Use another snapshot, or another destination that has this one.",
  });
}

function nameOf({ destination, prefix, id }: PartsPlace, name: string): string {
  return `${destination.name}/${prefix}/${id}/${name}`;
}
