import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { confirm, input, select } from "@inquirer/prompts";
import { isRecipient } from "../../archive/age-keys.ts";
import { createKey } from "../../usecases/create-key.ts";
import type { CliContext } from "../context.ts";
import { formatPlural } from "../format.ts";
import { askingOf, isGiven } from "./asking.ts";

/** What the new job's snapshots shall be encrypted to. */
export interface WantedEncryption {
  /** How the summary tells it. */
  readonly words: string;
  /** Makes a new key pair where one is wanted: only once the job is sure to be written. */
  settle(): Promise<{ readonly recipients?: readonly string[]; readonly identity?: string }>;
}

/** Asks whether and to which keys the snapshots are encrypted. */
export async function askForEncryption(context: CliContext): Promise<WantedEncryption> {
  const asking = askingOf(context);
  const choices = [
    { name: "no", value: "no" },
    { name: "yes, to a new key pair", value: "new" },
    { name: "yes, to public keys that I have (age1…)", value: "known" },
  ] as const;
  const chosen = await select({ message: "Encrypt the snapshots?", choices: [...choices] }, asking);
  if (chosen === "no") return { words: "none", settle: async () => ({}) };
  if (chosen === "known") {
    const check = async (text: string) => (await firstBad(listOf(text))) ?? true;
    const recipients = listOf(await input({ message: "Public keys, with commas between", validate: check }, asking));
    return { words: `to ${formatPlural(recipients.length, "public key")}`, settle: async () => ({ recipients }) };
  }
  const validate = (text: string) =>
    existsSync(resolve(context.cwd, text)) ? "It exists already, and a key is never replaced" : isGiven(text);
  const file = await input({ message: "File for the secret key", default: "./rowkeep.key", validate }, asking);
  const path = resolve(context.cwd, file);
  const message = "Keep the secret key here, so that this machine can restore and check by itself?";
  const keeps = await confirm({ message, default: true }, asking);
  return {
    words: `to a new key, its secret half in ${path}`,
    settle: async () => {
      const created = await createKey({ path, kitPath: `${path}.kit.txt`, now: context.now() });
      context.output.note(`The secret key lies in ${created.file}, a recovery kit to print in ${created.kit}.`);
      context.output.note(
        "Without the secret key nothing can be restored: keep more than one copy, apart from the backups.",
      );
      if (!keeps) context.output.note(`Take ${created.file} and the kit away from this machine.`);
      return { recipients: [created.recipient], ...(keeps ? { identity: `file:${created.file}` } : {}) };
    },
  };
}

function listOf(text: string): readonly string[] {
  return text.split(/[\s,]+/).filter((part) => part !== "");
}

async function firstBad(recipients: readonly string[]): Promise<string | undefined> {
  if (recipients.length === 0) return "Give one or more";
  for (const [index, recipient] of recipients.entries()) {
    // Not repeated: it may be a secret key.
    if (!(await isRecipient(recipient))) return `Number ${index + 1} is no public key of age (age1…)`;
  }
  return undefined;
}
