import { hash } from "node:crypto";
import { archiveError } from "../archive/archive-error.ts";
import {
  encryptTo,
  generateKeyPair,
  type Lock,
  makeSeal,
  type OpenFile,
  openerOf,
  parseIdentities,
} from "../archive/age-keys.ts";
import { encryptChunk, type FileSeal } from "../archive/chunk-encryption.ts";

/** Name of the snapshot's own key below its folder and in its first volume: an identity file, encrypted by the job's lock. */
export const KEY_NAME = "key.age";
export const MAX_KEY_BYTES = 64 * 1024;

/** The key of one snapshot while it is written. Its secret half is in `file` only, where the writer cannot read it. */
export interface SnapshotKey {
  /** What is stored as `key.age`. */
  readonly file: Buffer;
  readonly lock: Lock;
  /** Makes a seal for one chunk. */
  makeSeal(): Promise<FileSeal>;
  /** Encrypts something whole, like the manifest. */
  encrypt(bytes: Uint8Array): Promise<Buffer>;
}

/** Makes a key pair for one snapshot and locks its secret half. */
export async function createSnapshotKey(lock: Lock): Promise<SnapshotKey> {
  const { identity, recipient } = await generateKeyPair();
  return {
    file: await encryptTo(lock, `# the key of one rowkeep snapshot\n${identity}\n`),
    lock,
    makeSeal: () => makeSeal(recipient),
    encrypt: async (bytes) => encryptChunk(bytes, await makeSeal(recipient)),
  };
}

/** Opens the keys of snapshots with the secret keys and passphrases that a person has. */
export interface KeyRing {
  /**
   * Gives what decrypts the snapshot whose `key.age` this is.
   * Fails with kind `archive`: `wrong-key`, `damaged`, `key-needed` when there is no key after all.
   */
  unlock(keyFile: Uint8Array): Promise<OpenFile>;
}

/** The keys must have been checked by `parseIdentities`. */
export function createKeyRing(keys: {
  readonly identities: readonly string[];
  readonly passphrases?: readonly string[];
}): KeyRing {
  const open = openerOf(keys);
  const unlock = async (keyFile: Uint8Array) => {
    const parsed = await parseIdentities((await open(keyFile)).toString("utf8"));
    if (typeof parsed === "string") throw archiveError("cannot use the key of a snapshot: it is none", "damaged");
    return openerOf(parsed);
  };
  // The same snapshot is opened to list it and to read it, at several destinations: a passphrase takes a second each time.
  const known = new Map<string, Promise<OpenFile>>();
  let tail: Promise<unknown> = Promise.resolve();
  return {
    unlock(keyFile) {
      const id = hash("sha256", keyFile);
      const opened = known.get(id);
      if (opened) return opened;
      // One by one: each try of a passphrase takes 128 MiB.
      const turn = tail.then(() => unlock(keyFile));
      tail = turn.catch(() => {});
      if (known.size < MAX_KNOWN) known.set(id, turn);
      return turn;
    },
  };
}

const MAX_KNOWN = 10_000;

/** Gives a key ring of which is only known why it is not there; it opens nothing, and says so. */
export function createMissingKeyRing(reason: string): KeyRing {
  return { unlock: () => Promise.reject(archiveError(reason, "key-needed")) };
}
