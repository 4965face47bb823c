import { rm } from "node:fs/promises";
import { generateKeyPair, keyIdOf, type KeyPair } from "../archive/age-keys.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import { writeWhole } from "../job/write-job.ts";

export interface CreateKeyOptions {
  /** Absolute path of the identity file to write. */
  readonly path: string;
  /** Absolute path of the recovery kit to write; undefined: none. */
  readonly kitPath?: string | undefined;
  readonly now: Date;
}

export interface CreatedKey {
  /** The public key, for `encryption.recipients`. */
  readonly recipient: string;
  /** How messages and snapshots call it. */
  readonly keyId: string;
  readonly file: string;
  readonly kit?: string | undefined;
}

/**
 * Makes a key pair and writes its secret half, and a kit to print, into new files that only their owner can read.
 * Fails with kind `refused`, `exists`: no file is ever replaced, and then none is left.
 */
export async function createKey({ path, kitPath, now }: CreateKeyOptions): Promise<CreatedKey> {
  const pair = await generateKeyPair();
  const { recipient } = pair;
  const keyId = keyIdOf(recipient);
  await writeNew(path, renderIdentityFile(pair, now));
  if (kitPath === undefined) return { recipient, keyId, file: path };
  try {
    await writeNew(kitPath, renderKit(pair, now));
  } catch (error) {
    // Nobody has seen it yet: nothing can be encrypted to it.
    await rm(path, { force: true });
    throw error;
  }
  return { recipient, keyId, file: path, kit: kitPath };
}

async function writeNew(path: string, text: string): Promise<void> {
  try {
    await writeWhole(path, text, { replace: false });
  } catch (cause) {
    if (codeOf(cause) !== "exists") throw cause;
    throw new OperationalError(`cannot write ${path}: it exists already`, {
      kind: "refused",
      code: "exists",
      hint: "Choose another file: a key is never replaced, since snapshots may need it.",
    });
  }
}

/** As age's own key generator writes it, so that `age -d -i <file>` reads it. */
function renderIdentityFile({ identity, recipient }: KeyPair, now: Date): string {
  return `# created: ${now.toISOString()}\n# public key: ${recipient}\n# key id: ${keyIdOf(recipient)}\n${identity}\n`;
}

function renderKit({ identity, recipient }: KeyPair, now: Date): string {
  const line = "=".repeat(78);
  return `${line}
ROWKEEP RECOVERY KIT
${line}

Print this page, keep it where neither a fire nor a thief gets it together with
the backups, then delete the file. Without the secret key nobody can restore
the snapshots: not you, and not the makers of rowkeep.

Created      ${now.toISOString()}

Key id       ${keyIdOf(recipient)}

Public key   ${recipient}

Secret key   ${identity}

In groups, for typing it in (leave out the spaces):

${inGroups(identity)}

To back up, a job needs the public key only:

    encryption:
      recipients: ["${recipient}"]

To restore, put the secret key alone on one line of a file, identity.txt, that
only you can read, and run

    rowkeep restore <job> --identity identity.txt

Without rowkeep: the volumes of every snapshot hold RECOVER.md, which says how
to restore with tar, age (https://age-encryption.org), zstd and psql:

    tar -xf volume-0001.tar RECOVER.md key.age
    age -d -i identity.txt -o snapshot-key.txt key.age
`;
}

function inGroups(text: string): string {
  const groups = text.match(/.{1,5}/g) ?? [];
  const lines = Array.from({ length: Math.ceil(groups.length / 8) }, (_, at) => groups.slice(at * 8, at * 8 + 8));
  return lines.map((line) => `    ${line.join(" ")}`).join("\n");
}
