import { hash } from "node:crypto";
import type { Identity } from "age-encryption";
import { archiveError } from "./archive-error.ts";
import { decryptPayload, type FileSeal, headerLengthOf } from "./chunk-encryption.ts";

// Every operation on keys is the age library's (https://c2sp.org/age). Its messages may quote a key, so none of them
// becomes a message or a cause here. It takes a quarter of a second to load: only when something is encrypted.

/** What opens a snapshot's key: any of these public keys' owners, or who knows the passphrase. */
export type Lock = { readonly recipients: readonly string[] } | { readonly passphrase: string };

export interface KeyPair {
  /** The secret half: `AGE-SECRET-KEY-1…`. */
  readonly identity: string;
  /** The public half: `age1…`. */
  readonly recipient: string;
}

/** Decrypts a whole file in the age format; fails with kind `archive`, `wrong-key` or `damaged`. */
export type OpenFile = (file: Uint8Array) => Promise<Buffer>;

/**
 * How costly it is to try a passphrase: 2^17 blocks, half a second and 128 MiB. One more would not fit beside a run's
 * other memory; a file that asks for more than 2^18, what age's own tool uses, is refused.
 */
const SCRYPT_WORK_FACTOR = 17;
const MAX_SCRYPT_WORK_FACTOR = 18;

export async function generateKeyPair(): Promise<KeyPair> {
  const { generateX25519Identity, identityToRecipient } = await import("age-encryption");
  const identity = await generateX25519Identity();
  return { identity, recipient: await identityToRecipient(identity) };
}

/** Tells the public half of a secret key; undefined when it is none. */
export async function recipientOf(identity: string): Promise<string | undefined> {
  const { identityToRecipient } = await import("age-encryption");
  return identityToRecipient(identity).catch(() => undefined);
}

/**
 * Names a public key without giving it away: 16 hex digits of its SHA-256. A public key is not written to a destination:
 * whoever reads it there could write snapshots that look like the job's own.
 */
export function keyIdOf(recipient: string): string {
  return hash("sha256", recipient).slice(0, 16);
}

/** Says whether something can be encrypted to this public key: `age1…`, `age1pq1…`, `age1tag1…`. */
export async function isRecipient(text: string): Promise<boolean> {
  const { Encrypter } = await import("age-encryption");
  const encrypter = new Encrypter();
  try {
    encrypter.addRecipient(text);
    await encrypter.encrypt(new Uint8Array(0));
    return true;
  } catch {
    return false;
  }
}

/** Encrypts something small, like a key, wholly by the library. */
export async function encryptTo(lock: Lock, bytes: Uint8Array | string): Promise<Buffer> {
  const { Encrypter } = await import("age-encryption");
  const encrypter = new Encrypter();
  if ("passphrase" in lock) {
    encrypter.setScryptWorkFactor(SCRYPT_WORK_FACTOR);
    encrypter.setPassphrase(lock.passphrase);
  } else for (const recipient of lock.recipients) encrypter.addRecipient(recipient);
  return Buffer.from(await encrypter.encrypt(bytes));
}

/** Makes a seal for one file, with a key of its own that only the recipient's owner can unwrap. */
export async function makeSeal(recipient: string): Promise<FileSeal> {
  const { Encrypter } = await import("age-encryption");
  const encrypter = new Encrypter();
  const taken = Promise.withResolvers<Uint8Array>();
  encrypter.addRecipient(recipient);
  // Adds nothing to the header: this is the library's way to ask what key the file has.
  encrypter.addRecipient({
    wrapFileKey(fileKey) {
      taken.resolve(fileKey);
      return [];
    },
  });
  const empty = await encrypter.encrypt(new Uint8Array(0));
  return { header: empty.subarray(0, headerLengthOf(empty)), fileKey: await taken.promise };
}

/** Opens files with any of these secret keys and passphrases; `keys` have been checked by `recipientOf`. */
export function openerOf(keys: {
  readonly identities: readonly string[];
  readonly passphrases?: readonly string[];
}): OpenFile {
  return async (file) => {
    const header = file.subarray(0, headerLengthOf(file));
    return decryptPayload(file.subarray(header.length), await unwrap(header, keys));
  };
}

async function unwrap(header: Uint8Array, keys: Parameters<typeof openerOf>[0]): Promise<Uint8Array> {
  const { Decrypter } = await import("age-encryption");
  const decrypter = new Decrypter();
  let noneMatched = false;
  decrypter.addIdentity(REFUSE_COSTLY);
  for (const identity of keys.identities) decrypter.addIdentity(identity);
  for (const passphrase of keys.passphrases ?? []) decrypter.addPassphrase(passphrase);
  decrypter.addIdentity({
    // The last one is asked only when no other could open the file.
    unwrapFileKey() {
      noneMatched = true;
      return null;
    },
  });
  try {
    return await decrypter.decryptHeader(header);
  } catch {
    if (noneMatched) throw archiveError("cannot decrypt: it is encrypted to another key", "wrong-key");
    throw archiveError("cannot decrypt: its header was changed", "damaged");
  }
}

/** A file that somebody made to cost hours or gigabytes is refused before it is tried. */
const REFUSE_COSTLY: Identity = {
  unwrapFileKey(stanzas) {
    for (const { args } of stanzas) {
      if (args[0] === "scrypt" && Number(args[2]) > MAX_SCRYPT_WORK_FACTOR) throw new Error("too costly");
    }
    return null;
  },
};

/**
 * Reads the secret keys of an identity file: one a line, empty lines and comments left out. Fails with what is wrong,
 * which never quotes the text.
 */
export async function parseIdentities(text: string): Promise<{ readonly identities: readonly string[] } | string> {
  const identities = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  if (identities.length === 0) return "it holds no secret key";
  if (identities.length > MAX_IDENTITIES) return `it holds more than ${MAX_IDENTITIES} keys`;
  for (const [index, identity] of identities.entries()) {
    if ((await recipientOf(identity)) === undefined) {
      const place = identities.length > 1 ? `its key number ${index + 1}` : "it";
      return identity.startsWith("age1")
        ? `${place} is a public key, not the secret one`
        : `${place} is not a secret key: AGE-SECRET-KEY-1…`;
    }
  }
  return { identities };
}

const MAX_IDENTITIES = 100;
