import { encryptTo, isRecipient, type Lock, openerOf, parseIdentities } from "../archive/age-keys.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import { createKeyRing, createMissingKeyRing, type KeyRing } from "../snapshot/snapshot-key.ts";
import type { Job } from "./read-job.ts";
import { keepSecret, resolveSecret, type SecretSurroundings } from "./secrets.ts";

/** Whoever copies the encrypted files can try passphrases for years. */
const MIN_PASSPHRASE_LENGTH = 8;

type EncryptedJob = Pick<Job, "name" | "encryption">;

/**
 * Gives what a job's snapshots are encrypted to; every recipient is a public key then. Undefined for a job without encryption.
 * Fails with kind `job`: `bad-recipient`, `weak-passphrase`, `secret`.
 */
export async function lockOf(job: EncryptedJob, surroundings: SecretSurroundings): Promise<Lock | undefined> {
  const { encryption } = job;
  if (!encryption) return undefined;
  if (!encryption.recipients) {
    const passphrase = await passphraseOf(job, surroundings);
    return passphrase === undefined ? undefined : { passphrase };
  }
  for (const [index, recipient] of encryption.recipients.entries()) {
    if (!(await isRecipient(recipient))) throw badRecipient(job, index, recipient);
  }
  return { recipients: encryption.recipients };
}

/** What a run encrypts with, and what it can read with. */
export interface JobKeys {
  /** Undefined for a job without encryption. */
  readonly lock?: Lock | undefined;
  /** Undefined where this machine can only encrypt. */
  readonly keys?: KeyRing | undefined;
  /** One sentence about the file of the identity, which the job names and this machine does not have. */
  readonly missing?: string | undefined;
}

/**
 * Gives the lock and the keys of a job once it is proved that the identity, where the job names one, opens what is encrypted
 * to its recipients. A machine that backs up needs no identity: it may lack the file that the job names.
 * Fails like `lockOf`, and with `bad-identity`, `key-mismatch` and, for an identity that is no missing file, `secret`.
 */
export async function jobKeysOf(job: EncryptedJob, surroundings: SecretSurroundings): Promise<JobKeys> {
  const lock = await lockOf(job, surroundings);
  if (!lock) return {};
  const { identities, missing } = await identitiesIfThere(job, surroundings);
  if ("passphrase" in lock) return { lock, keys: ringOf(identities, lock.passphrase), missing };
  if (identities.length > 0) await tryKeys(job, lock, identities);
  return { lock, keys: ringOf(identities), missing };
}

/**
 * Gives the keys that a job names for reading; undefined when it names none. With `identityFile` its keys come first, and those
 * of the job are left out when they are not at hand: on the day of the restore they may be what was lost.
 * Fails with kind `job`: `bad-identity`, `weak-passphrase`, `secret`.
 */
export async function keyRingOf(
  job: EncryptedJob,
  surroundings: SecretSurroundings,
  identityFile?: string,
): Promise<KeyRing | undefined> {
  const given =
    identityFile === undefined ? [] : await readIdentities(`file:${identityFile}`, "--identity", surroundings);
  const forgive = (error: unknown) => {
    if (given.length === 0 || !(error instanceof OperationalError)) throw error;
    surroundings.warn?.(error.message);
    return undefined;
  };
  const own = await identitiesOf(job, surroundings).catch(forgive);
  const passphrase = await passphraseOf(job, surroundings).catch(forgive);
  return ringOf([...given, ...(own ?? [])], passphrase);
}

function ringOf(identities: readonly string[], passphrase?: string): KeyRing | undefined {
  if (identities.length === 0 && passphrase === undefined) return undefined;
  return createKeyRing({ identities, passphrases: passphrase === undefined ? [] : [passphrase] });
}

/**
 * Gives the keys of a job for commands that also work without: when those of the job are not on this machine, that is a
 * warning, and the ring says why it opens nothing. Fails with kind `job` when `identityFile` cannot be used.
 */
export async function keyRingIfAny(
  job: EncryptedJob,
  surroundings: SecretSurroundings,
  identityFile?: string,
): Promise<KeyRing | undefined> {
  if (!job.encryption && identityFile === undefined) return undefined;
  try {
    return await keyRingOf(job, surroundings, identityFile);
  } catch (error) {
    if (!(error instanceof OperationalError) || identityFile !== undefined) throw error;
    surroundings.warn?.(error.message);
    return createMissingKeyRing(error.message);
  }
}

async function identitiesOf(
  { encryption }: EncryptedJob,
  surroundings: SecretSurroundings,
): Promise<readonly string[]> {
  if (encryption?.identity === undefined) return [];
  return readIdentities(encryption.identity, "encryption.identity", surroundings);
}

async function identitiesIfThere(job: EncryptedJob, surroundings: SecretSurroundings) {
  try {
    return { identities: await identitiesOf(job, surroundings), missing: undefined };
  } catch (error) {
    // Anything else is a mistake: an empty variable, a command that fails, a file that is no key.
    if (!(error instanceof OperationalError) || codeOf(error.cause) !== "ENOENT") throw error;
    return { identities: [], missing: error.message };
  }
}

async function readIdentities(
  secret: string,
  field: string,
  surroundings: SecretSurroundings,
): Promise<readonly string[]> {
  const parsed = await parseIdentities(await resolveSecret(secret, field, surroundings));
  if (typeof parsed === "string") {
    throw jobError(`cannot use ${field}: ${parsed}`, "bad-identity", "Name the file that rowkeep key create wrote.");
  }
  for (const identity of parsed.identities) keepSecret(identity);
  return parsed.identities;
}

async function passphraseOf(
  { name, encryption }: EncryptedJob,
  surroundings: SecretSurroundings,
): Promise<string | undefined> {
  if (encryption?.passphrase === undefined) return undefined;
  const passphrase = await resolveSecret(encryption.passphrase, "encryption.passphrase", surroundings);
  if (passphrase.length >= MIN_PASSPHRASE_LENGTH) return passphrase;
  throw jobError(
    `cannot use the passphrase of ${name}: it has fewer than ${MIN_PASSPHRASE_LENGTH} characters`,
    "weak-passphrase",
    "Choose four or more random words, or use a key pair: rowkeep key create.",
  );
}

/** A key that opens nothing is found today, not on the day of the restore. */
async function tryKeys({ name }: EncryptedJob, lock: Lock, identities: readonly string[]): Promise<void> {
  try {
    await openerOf({ identities })(await encryptTo(lock, "trial"));
  } catch (error) {
    if (codeOf(error) !== "wrong-key") throw error;
    throw jobError(
      `cannot use the encryption of ${name}: its identity does not open what is encrypted to its recipients`,
      "key-mismatch",
      "Make recipients and identity halves of one pair, or take the identity out of the job.",
    );
  }
}

function badRecipient({ name }: EncryptedJob, index: number, recipient: string): OperationalError {
  const field = `encryption.recipients[${index}] of ${name}`;
  if (/^AGE-SECRET-KEY-/i.test(recipient)) {
    return jobError(
      `cannot use ${field}: it is a secret key`,
      "bad-recipient",
      "Take it out of the job, make another pair with rowkeep key create, and give its public key: age1….",
    );
  }
  const reason = recipient.startsWith("ssh-") ? "keys of SSH are not supported" : "it is not a public key of age";
  return jobError(`cannot use ${field}: ${reason}`, "bad-recipient", "Give a public key: age1….");
}

function jobError(message: string, code: string, hint: string): OperationalError {
  return new OperationalError(message, { kind: "job", code, hint });
}
