import { hash } from "node:crypto";
import type { OpenFile } from "../archive/age-keys.ts";
import { archiveError } from "../archive/archive-error.ts";
import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { type Envelope, ENVELOPE_NAME, MAX_ENVELOPE_BYTES, parseEnvelope, type ReadEnvelope } from "./envelope-text.ts";
import type { Manifest } from "./manifest.ts";
import { ENCRYPTED_MANIFEST_NAME, MANIFEST_NAME, MAX_MANIFEST_BYTES } from "./manifest-text.ts";
import { collectBytes } from "./object-bytes.ts";
import { parseManifest } from "./parse-manifest.ts";
import { KEY_NAME, type KeyRing, MAX_KEY_BYTES } from "./snapshot-key.ts";

/** The folder of one snapshot at one destination, and what its key is opened with. */
export interface SnapshotPlace {
  readonly destination: Destination;
  readonly prefix: string;
  readonly id: string;
  readonly keys?: KeyRing | undefined;
  /** Which manifest is there, for who has just listed the folder; undefined: it is asked. */
  readonly isEncrypted?: boolean | undefined;
  /** For who has just read it; null where there is none. Undefined: it is read. */
  readonly envelope?: ReadEnvelope | null | undefined;
  /** Bytes of the manifest's object, where they are known. */
  readonly size?: number | undefined;
  readonly signal: AbortSignal;
}

export interface OpenedManifest {
  readonly manifest: Manifest;
  /** Decrypts the chunks of an encrypted snapshot; undefined for a plain one. */
  readonly decrypt?: OpenFile | undefined;
}

/**
 * Reads the manifest of a snapshot, and opens its key when it is encrypted. Fails with kind `destination` or `archive`:
 * `not-found`, `future-version`, `invalid-manifest`, `damaged`, `key-needed` without keys, `wrong-key`.
 */
export async function openManifest(place: SnapshotPlace): Promise<OpenedManifest> {
  // The encrypted one counts where both are: a plain one, which anybody could have put there, must not replace it.
  const isEncrypted = place.isEncrypted ?? (await statObject(place, ENCRYPTED_MANIFEST_NAME)) !== undefined;
  const decrypt = isEncrypted ? await openSnapshotKey(place) : undefined;
  const object = isEncrypted ? ENCRYPTED_MANIFEST_NAME : MANIFEST_NAME;
  const name = nameOf(place, object);
  const bytes = await readObject(place, object, { maxBytes: MAX_MANIFEST_BYTES, size: place.size });
  if (bytes === undefined) {
    throw archiveError(
      `cannot find the snapshot ${place.id} at ${place.destination.name}: it has no manifest`,
      "not-found",
      { hint: "List the snapshots of this job." },
    );
  }
  const manifest = parseManifest(decrypt ? await decryptManifest(bytes, decrypt, name) : bytes, name);
  if (manifest.id !== place.id) {
    throw archiveError(`cannot read ${name}: it is the manifest of another snapshot`, "invalid-manifest");
  }
  if ((manifest.encryption !== undefined) !== isEncrypted) {
    throw archiveError(`cannot read ${name}: it does not say of itself what it is`, "invalid-manifest");
  }
  return { manifest, ...(decrypt ? { decrypt } : {}) };
}

/** Reads what is known without the key; undefined when that is missing or damaged, since nothing depends on it. */
export async function readEnvelope(place: SnapshotPlace): Promise<ReadEnvelope | undefined> {
  try {
    const bytes = await readObject(place, ENVELOPE_NAME, { maxBytes: MAX_ENVELOPE_BYTES });
    const envelope = bytes && parseEnvelope(bytes, nameOf(place, ENVELOPE_NAME));
    return envelope?.id === place.id ? envelope : undefined;
  } catch (error) {
    if (error instanceof OperationalError && error.kind === "archive") return undefined;
    throw error;
  }
}

/** Opens the key of an encrypted snapshot. Fails as `openManifest` does. */
export async function openSnapshotKey(place: SnapshotPlace): Promise<OpenFile> {
  const envelope = place.envelope === undefined ? await readEnvelope(place) : (place.envelope ?? undefined);
  const subject = `cannot open the snapshot ${place.id} at ${place.destination.name}`;
  const file = await readObject(place, KEY_NAME, { maxBytes: MAX_KEY_BYTES });
  if (file === undefined) {
    throw archiveError(`${subject}: its ${KEY_NAME} is missing`, "damaged", {
      hint: `Copy ${KEY_NAME} there from another destination, or out of ${envelope?.volumes[0]?.name ?? "volume-0001.tar"}.`,
    });
  }
  // Before any key is tried: a flipped bit in it would look like a wrong key.
  if (envelope && (file.length !== envelope.key.size || hash("sha256", file) !== envelope.key.sha256)) {
    throw archiveError(`${subject}: its ${KEY_NAME} is damaged (its SHA-256 is not the one recorded)`, "damaged", {
      hint: `Copy ${KEY_NAME} there from another destination, or out of ${envelope.volumes[0]?.name ?? "volume-0001.tar"}.`,
    });
  }
  const wanted = describeLock(envelope);
  if (place.keys === undefined) {
    throw archiveError(`${subject}: it is encrypted, and no key to open it was given`, "key-needed", {
      hint: `Give ${wanted}: by --identity <file>, or in the job's encryption.`,
    });
  }
  try {
    return await place.keys.unlock(file);
  } catch (cause) {
    const code = codeOf(cause);
    if (code === "key-needed") {
      throw archiveError(`${subject}: it is encrypted, and its key is not at hand: ${messageOf(cause)}`, code, {
        hint: `Give ${wanted}: by --identity <file>, or in the job's encryption.`,
      });
    }
    if (code === "wrong-key") {
      throw archiveError(`${subject}: the key is wrong`, "wrong-key", {
        hint: `It was encrypted for another one: give ${wanted}, by --identity <file> or in the job's encryption.`,
      });
    }
    if (code === "damaged") throw archiveError(`${subject}: its ${KEY_NAME} is damaged`, "damaged", { cause });
    throw cause;
  }
}

function describeLock(envelope: Envelope | undefined): string {
  if (envelope?.passphrase) return "the passphrase";
  if (!envelope || envelope.keyIds.length === 0) return "the secret key or the passphrase that it was encrypted to";
  return `the secret key with the id ${envelope.keyIds.join(" or ")}`;
}

async function decryptManifest(bytes: Buffer, decrypt: OpenFile, name: string): Promise<Buffer> {
  try {
    return await decrypt(bytes);
  } catch (cause) {
    if (!(cause instanceof OperationalError)) throw cause;
    // The key has been proved right: what it does not open was changed, or belongs to another snapshot.
    throw archiveError(`cannot read ${name}: it is damaged, or encrypted to the key of another snapshot`, "damaged", {
      hint: "Use another snapshot, or another destination that has this one.",
    });
  }
}

async function readObject(
  place: SnapshotPlace,
  name: string,
  { maxBytes, size }: { readonly maxBytes: number; readonly size?: number | undefined },
): Promise<Buffer | undefined> {
  try {
    const bytes = place.destination.get(keyOf(place, name), { size, signal: place.signal });
    return await collectBytes(bytes, maxBytes, nameOf(place, name));
  } catch (error) {
    if (codeOf(error) === "not-found") return undefined;
    throw error;
  }
}

function statObject(place: SnapshotPlace, name: string) {
  return place.destination.stat(keyOf(place, name), { signal: place.signal });
}

function keyOf({ prefix, id }: SnapshotPlace, name: string): string {
  return `${prefix}/${id}/${name}`;
}

function nameOf(place: SnapshotPlace, name: string): string {
  return `${place.destination.name}/${keyOf(place, name)}`;
}
