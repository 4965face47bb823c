import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { encryptTo, generateKeyPair } from "../../src/archive/age-keys.ts";
import { jobKeysOf, keyRingOf, lockOf } from "../../src/job/encryption.ts";
import { redactSecrets, type SecretSurroundings } from "../../src/job/secrets.ts";
import type { Job } from "../../src/job/read-job.ts";
import { createSnapshotKey } from "../../src/snapshot/snapshot-key.ts";

const [mine, theirs] = [await generateKeyPair(), await generateKeyPair()];

let folder: string;
let surroundings: SecretSurroundings;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  surroundings = { env: { PHRASE: "correct horse battery" }, folder, signal: new AbortController().signal };
  await writeFile(join(folder, "mine.key"), `# public key: ${mine.recipient}\n${mine.identity}\n`, { mode: 0o600 });
  await writeFile(join(folder, "theirs.key"), theirs.identity, { mode: 0o600 });
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const jobWith = (encryption: Job["encryption"]) => ({ name: "shop", encryption });

describe("the lock of a job", () => {
  test.each([
    ["nothing", undefined, undefined],
    ["recipients", { recipients: [mine.recipient] }, { recipients: [mine.recipient] }],
    [
      "their identity too",
      { recipients: [mine.recipient], identity: "file:mine.key" },
      { recipients: [mine.recipient] },
    ],
    ["a passphrase", { passphrase: "${env:PHRASE}" }, { passphrase: "correct horse battery" }],
  ])("is made of %s", async (_, encryption, lock) => {
    expect((await jobKeysOf(jobWith(encryption), surroundings)).lock).toEqual(lock);
  });

  test.each([
    ["a mistyped recipient", { recipients: [`${mine.recipient.slice(0, -1)}b`] }, "bad-recipient"],
    ["a secret key as recipient", { recipients: [mine.recipient, mine.identity] }, "bad-recipient"],
    ["a key of SSH", { recipients: ["ssh-ed25519 AAAAC3"] }, "bad-recipient"],
    ["an identity of another pair", { recipients: [mine.recipient], identity: "file:theirs.key" }, "key-mismatch"],
    ["an identity of a missing variable", { recipients: [mine.recipient], identity: "${env:NONE}" }, "secret"],
    ["an identity whose path is a folder", { recipients: [mine.recipient], identity: "file:." }, "secret"],
    ["an identity that is public", { recipients: [mine.recipient], identity: mine.recipient }, "bad-identity"],
    ["a short passphrase", { passphrase: "canary" }, "weak-passphrase"],
  ])("is refused with %s, without a word of the key", async (_, encryption, code) => {
    const failure = await jobKeysOf(jobWith(encryption), surroundings).catch((error: unknown) => error);

    expect(failure).toMatchObject({ exitCode: 2, code });
    expect(String(failure)).not.toContain(mine.identity.slice(20, 40));
    expect(String(failure)).not.toContain("canary");
  });
});

describe("the keys of a job", () => {
  test("are none where the file of its identity is missing, and that is told", async () => {
    const job = jobWith({ recipients: [mine.recipient], identity: "file:none.key" });

    const { lock, keys, missing } = await jobKeysOf(job, surroundings);

    expect({ lock, keys }).toEqual({ lock: { recipients: [mine.recipient] }, keys: undefined });
    expect(missing).toContain("none.key does not exist");
    await expect(keyRingOf(job, surroundings)).rejects.toMatchObject({ code: "secret" });
  });

  test("are none where the job names none", async () => {
    expect(await keyRingOf(jobWith({ recipients: [mine.recipient] }), surroundings)).toBeUndefined();
  });

  test("are its own and those of the file that was named, and never shown", async () => {
    const { file } = await createSnapshotKey({ recipients: [theirs.recipient] });
    const own = jobWith({ recipients: [mine.recipient], identity: "file:mine.key" });

    const keys = await keyRingOf(own, surroundings, "theirs.key");
    const open = await keys?.unlock(file);

    expect(open).toBeDefined();
    expect(redactSecrets(`${mine.identity} ${theirs.identity}`)).toBe("*** ***");
  });

  test("are the one that was named when the job's own is lost", async () => {
    const { file } = await createSnapshotKey({ recipients: [mine.recipient] });
    const job = jobWith({ recipients: [mine.recipient], identity: "file:lost.key" });
    const warnings: string[] = [];

    const keys = await keyRingOf(job, { ...surroundings, warn: (message) => warnings.push(message) }, "mine.key");

    expect(await keys?.unlock(file)).toBeDefined();
    expect(warnings).toEqual([expect.stringContaining("lost.key does not exist")]);
    expect(await lockOf(job, surroundings)).toEqual({ recipients: [mine.recipient] });
    await expect(keyRingOf(job, surroundings)).rejects.toMatchObject({ code: "secret" });
  });

  test("open nothing that is no key of a snapshot", async () => {
    const keys = await keyRingOf(jobWith({ recipients: [mine.recipient], identity: mine.identity }), surroundings);

    const unlocked = keys?.unlock(await encryptTo({ recipients: [mine.recipient] }, "something else"));

    await expect(unlocked).rejects.toMatchObject({ exitCode: 7, code: "damaged" });
  });
});
