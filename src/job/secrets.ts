import { type ExecFileException, execFile } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { resolve } from "node:path";
import { codeOf, messageOf, OperationalError } from "../base/errors.ts";

const COMMAND_TIMEOUT_MS = 30_000;
const HIDDEN = "***";
/** Shorter values would make every output unreadable: they stand everywhere. */
const MIN_REDACTED_LENGTH = 4;

/** Every secret that was resolved in this process; no output of it may show one. */
const known = new Set<string>();

/** Replaces every secret that was resolved so far, also in the form that URLs use. */
export function redactSecrets(text: string): string {
  let result = text;
  for (const value of known) result = result.replaceAll(value, HIDDEN);
  return result;
}

/** Remembers a value that no output may show. */
export function keepSecret(value: string): void {
  for (const form of [value, encodeURIComponent(value)]) {
    if (form.length >= MIN_REDACTED_LENGTH) known.add(form);
  }
}

export interface SecretSurroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Folder that the paths of `file:` are relative to: the job file's. */
  readonly folder: string;
  readonly signal: AbortSignal;
  /** Called with one sentence when a secret's file is open to other users. */
  readonly warn?: ((message: string) => void) | undefined;
}

const ENV = /\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}/g;

/**
 * Gives what a secret field stands for: `${env:NAME}` anywhere in it, `file:path` (without the newline at its end),
 * `cmd:command` (its output without the newline at its end, run by the system's shell), or the text itself.
 * `field` is how the job file calls it. Fails with kind `job`, `secret`; never with the value in the message.
 */
export async function resolveSecret(text: string, field: string, surroundings: SecretSurroundings): Promise<string> {
  const value = await expand(text, field, surroundings);
  if (value !== text || looksSecret(field)) keepSecret(value);
  return value;
}

/** Whether a text stands for a secret that lies elsewhere, and holds nothing secret itself. */
export function isReference(text: string): boolean {
  return /^(file|cmd|keychain):./.test(text) || /^\$\{env:[A-Za-z_][A-Za-z0-9_]*\}$/.test(text);
}

/** Whether a field of this name, or the end of its path, holds a secret. */
export function looksSecret(field: string): boolean {
  return /password|passphrase|secret|key|token|sas|connection/i.test(field) && !/hostKey|keyFile/.test(field);
}

async function expand(text: string, field: string, surroundings: SecretSurroundings): Promise<string> {
  if (text.startsWith("file:")) return readSecretFile(text.slice("file:".length), field, surroundings);
  if (text.startsWith("cmd:")) return runSecretCommand(text.slice("cmd:".length), field, surroundings);
  if (text.startsWith("keychain:")) {
    throw secretError(field, "the keychain is not available yet", "Use ${env:NAME}, file:path or cmd:command.");
  }
  if (text.replaceAll(ENV, "").includes("${env:")) {
    throw secretError(field, "a ${env: is no ${env:NAME}", "Write letters, digits and _ between ${env: and }.");
  }
  return text.replaceAll(ENV, (_, name: string) => {
    const value = surroundings.env[name];
    if (value === undefined) throw secretError(field, `the environment has no ${name}`, `Set ${name}.`);
    if (value.length > 0) keepSecret(value);
    return value;
  });
}

async function readSecretFile(path: string, field: string, { folder, warn, env }: SecretSurroundings): Promise<string> {
  const home = env["HOME"] ?? env["USERPROFILE"] ?? homedir();
  const full = path.startsWith("~/") ? resolve(home, path.slice(2)) : resolve(folder, path);
  try {
    const { mode } = await stat(full);
    if (process.platform !== "win32" && (mode & 0o044) !== 0) {
      warn?.(`${full} can be read by other users: close it with chmod 600`);
    }
    return (await readFile(full, "utf8")).replace(/\r?\n$/, "");
  } catch (cause) {
    const reason = FILE_REASONS[codeOf(cause) ?? ""] ?? `cannot be read: ${messageOf(cause)}`;
    throw secretError(field, `${full} ${reason}`, "Check the path of the secret's file.", cause);
  }
}

const FILE_REASONS: Readonly<Record<string, string>> = {
  ENOENT: "does not exist",
  EISDIR: "is a folder",
  EACCES: "cannot be read by this user",
};

function runSecretCommand(
  command: string,
  field: string,
  { env, folder, signal }: SecretSurroundings,
): Promise<string> {
  const [shell, flag] = process.platform === "win32" ? ["cmd.exe", "/c"] : ["/bin/sh", "-c"];
  const options = { cwd: folder, env: { ...env }, timeout: COMMAND_TIMEOUT_MS, signal, maxBuffer: 1024 * 1024 };
  return new Promise((fulfil, reject) => {
    execFile(shell, [flag, command], options, (error, stdout) => {
      if (!error) return fulfil(stdout.replace(/\r?\n$/, ""));
      if (signal.aborted) return reject(signal.reason);
      // What the command printed may hold the secret: only how it ended is told.
      reject(secretError(field, `its command ${endOf(error)}`, "Run the command by hand to see why."));
    });
  });
}

function endOf({ killed, signal, code }: ExecFileException): string {
  if (code === "ERR_CHILD_PROCESS_STDIO_MAXBUFFER") return "printed more than 1 MiB";
  if (killed) return `did not end within ${COMMAND_TIMEOUT_MS / 1000} s`;
  return signal ? `was ended by ${signal}` : `ended with ${code}`;
}

function secretError(field: string, reason: string, hint: string, cause?: unknown): OperationalError {
  return new OperationalError(`cannot resolve ${field}: ${reason}`, { kind: "job", code: "secret", hint, cause });
}
