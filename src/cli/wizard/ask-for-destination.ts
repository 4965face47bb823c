import { homedir } from "node:os";
import { confirm, input, password, select } from "@inquirer/prompts";
import { OperationalError } from "../../base/errors.ts";
import { destinationNameOf } from "../../job/destination-name.ts";
import { HTTP_ADDRESS_WORDS, isHttpAddress, type JobDestination } from "../../job/job-schema.ts";
import type { WrittenDestination } from "../../job/destination-url.ts";
import { isReference, keepSecret } from "../../job/secrets.ts";
import type { CliContext } from "../context.ts";
import type { DestinationTrial } from "../try-destination.ts";
import { type Asking, askingOf, isGiven, isPort, tellFailure } from "./asking.ts";

type Type = JobDestination["type"];
type Validate = (text: string) => true | string;
type Fields = Record<string, string | number | boolean>;

const TYPES: readonly { readonly name: string; readonly value: Type }[] = [
  { name: "a folder of this machine or a mounted drive", value: "local" },
  { name: "SFTP (an SSH server)", value: "sftp" },
  { name: "S3, and everything that speaks it", value: "s3" },
  { name: "Azure Blob Storage", value: "azure" },
  { name: "Google Cloud Storage", value: "gcs" },
  { name: "FTP or FTPS", value: "ftp" },
];

/** Asks for destinations until one or more work and no other is wanted. */
export async function askForDestinations(
  context: CliContext,
  trial: DestinationTrial,
): Promise<readonly WrittenDestination[]> {
  const asking = askingOf(context);
  const destinations: WrittenDestination[] = [];
  do {
    const destination = await askUntilItWorks(context, { asking, trial }, destinations);
    if (destination) destinations.push(destination);
  } while (destinations.length === 0 || (await confirm({ message: "Another destination?", default: false }, asking)));
  return destinations;
}

/** Undefined when it was given up. */
async function askUntilItWorks(
  context: CliContext,
  { asking, trial }: { readonly asking: Asking; readonly trial: DestinationTrial },
  before: readonly WrittenDestination[],
): Promise<WrittenDestination | undefined> {
  let known: Fields = {};
  const chosen = new Map<string, string>();
  let type: Type | undefined;
  for (;;) {
    type ??= await select({ message: "Where shall snapshots go?", choices: [...TYPES] }, asking);
    const questions = new Questions(asking, { known, chosen });
    try {
      known = await askForFields(context, questions, type);
      const destination = { type, ...known } as WrittenDestination;
      refuseSame(destination, before);
      context.output.note("Trying it …");
      for (const warning of await trial.try(destination, before.length)) context.output.warn(warning);
      context.output.note("It can be written, read, listed and tidied.");
      return destination;
    } catch (error) {
      tellFailure(context, error);
      known = { ...known, ...questions.fields };
    }
    const next = await askWhatNext(asking, before.length > 0);
    if (next === "leave") return undefined;
    if (next === "other") [type, known] = [undefined, {}];
  }
}

/** The job file would be refused, after all questions. */
function refuseSame(destination: WrittenDestination, before: readonly WrittenDestination[]): void {
  const nameOf = (one: WrittenDestination) => destinationNameOf(one as unknown as JobDestination);
  const name = nameOf(destination);
  if (!before.map(nameOf).includes(name)) return;
  throw new OperationalError(`cannot add ${name}: it is among the destinations already`, {
    kind: "job",
    code: "same-destination",
    hint: "Choose another place, or add it to the job file with a name of its own.",
  });
}

async function askWhatNext(asking: Asking, canLeave: boolean): Promise<"again" | "other" | "leave"> {
  const choices = [
    { name: "change the answers and try again", value: "again" as const },
    { name: "another type of destination", value: "other" as const },
    ...(canLeave ? [{ name: "leave this destination out", value: "leave" as const }] : []),
  ];
  return await select({ message: "What now?", choices }, asking);
}

/** Questions whose default is the last answer, so that a second try costs only what was wrong. */
class Questions {
  readonly fields: Fields = {};
  readonly #asking: Asking;
  readonly #known: Fields;
  readonly #chosen: Map<string, string>;

  constructor(asking: Asking, { known, chosen }: { readonly known: Fields; readonly chosen: Map<string, string> }) {
    this.#asking = asking;
    this.#known = known;
    this.#chosen = chosen;
  }

  async text(field: string, message: string, fallback?: string): Promise<string> {
    const known = this.#known[field] ?? fallback;
    const answer = await input(
      { message, ...(known === undefined ? {} : { default: String(known) }), validate: isGiven },
      this.#asking,
    );
    this.fields[field] = answer.trim();
    return answer.trim();
  }

  /** `none` is what no answer means. Once there is one, Return gives it again. */
  async optional(
    field: string,
    { message, none, validate = () => true }: { message: string; none: string; validate?: Validate },
  ): Promise<string> {
    const known = this.#known[field];
    const words = known === undefined ? `Return: ${none}` : `a space: ${none}`;
    const answer = await input(
      {
        message: `${message} (${words})`,
        ...(known === undefined ? {} : { default: String(known) }),
        validate: (text) => text.trim() === "" || validate(text.trim()),
      },
      this.#asking,
    );
    if (answer.trim() !== "") this.fields[field] = answer.trim();
    return answer.trim();
  }

  async port(usual: number): Promise<number> {
    const known = String(this.#known["port"] ?? usual);
    const port = Number(await input({ message: "Port", default: known, validate: isPort }, this.#asking));
    if (port !== usual) this.fields["port"] = port;
    return port;
  }

  /** What is typed is kept out of every output and goes into a file of its own; a reference stays as it is. */
  async secret(field: string, message: string): Promise<void> {
    const hasOne = this.#known[field] !== undefined;
    const note = hasOne ? " (Return: the same as before)" : " (or ${env:NAME}, file:path)";
    const answer = await password({ message: `${message}${note}`, mask: true }, this.#asking);
    const value = answer === "" ? this.#known[field] : answer;
    if (value === undefined) return;
    if (!isReference(String(value))) keepSecret(String(value));
    this.fields[field] = value;
  }

  /** The last answer to the same question is chosen already. */
  async choose<T extends string>(
    message: string,
    choices: readonly { readonly name: string; readonly value: T }[],
  ): Promise<T> {
    const last = choices.find(({ value }) => value === this.#chosen.get(message))?.value;
    const answer = await select(
      { message, choices: [...choices], ...(last === undefined ? {} : { default: last }) },
      this.#asking,
    );
    this.#chosen.set(message, answer);
    return answer;
  }

  async agree(message: string): Promise<boolean> {
    return await confirm({ message, default: false }, this.#asking);
  }
}

async function askForFields(context: CliContext, ask: Questions, type: Type): Promise<Fields> {
  switch (type) {
    case "local":
      await ask.text("path", "Folder for the snapshots", "./backups");
      break;
    case "sftp":
      await askForSftp(context, ask);
      break;
    case "s3":
      await askForS3(ask);
      break;
    case "azure":
      await askForAzure(ask);
      break;
    case "gcs":
      await ask.text("bucket", "Bucket");
      await ask.optional("prefix", { message: "Prefix in the bucket", none: "none" });
      await ask.optional("keyFile", {
        message: "Key file of a service account",
        none: "application default credentials",
      });
      break;
    case "ftp":
      await askForFtp(ask);
      break;
  }
  return ask.fields;
}

async function askForSftp(context: CliContext, ask: Questions): Promise<void> {
  const host = await ask.text("host", "Host");
  const port = await ask.port(22);
  await ask.text("user", "User");
  await ask.text("path", "Folder on the server (without / in front: below the user's home)", "/backups");
  const way = await ask.choose("How does it know you?", [
    { name: "a private key", value: "key" },
    { name: "the SSH agent", value: "agent" },
    { name: "a password", value: "password" },
  ]);
  if (way === "agent") ask.fields["agent"] = true;
  if (way === "password") await ask.secret("password", "Password");
  if (way === "key") {
    const path = await ask.text("privateKey", "File of the private key", `${homedir()}/.ssh/id_ed25519`);
    ask.fields["privateKey"] = path.startsWith("file:") ? path : `file:${path}`;
    await ask.secret("passphrase", "Passphrase of the key, if it has one");
  }
  const { readHostKey } = await import("../../destinations/sftp-host-key.ts");
  const hostKey = await readHostKey({ host, port }, context);
  context.output.note(`The server shows the host key ${hostKey}`);
  if (await ask.agree("Is it the server's own? Its administrator knows")) ask.fields["hostKey"] = hostKey;
  else await ask.text("hostKey", "Fingerprint of the right one (SHA256:…)");
}

async function askForS3(ask: Questions): Promise<void> {
  await ask.text("bucket", "Bucket");
  await ask.optional("prefix", { message: "Prefix in the bucket", none: "none" });
  const endpoint = await ask.optional("endpoint", {
    message: "Address of the service",
    none: "Amazon",
    validate: (text) => isHttpAddress(text) || `It ${HTTP_ADDRESS_WORDS}`,
  });
  await ask.text("region", "Region", endpoint === "" ? "eu-central-1" : "us-east-1");
  if (endpoint !== "") ask.fields["pathStyle"] = true;
  const way = await ask.choose("Credentials", [
    { name: "an access key", value: "key" },
    { name: "what the environment, a profile or the machine's role gives", value: "chain" },
  ]);
  if (way === "chain") {
    await ask.optional("profile", { message: "Profile", none: "the default chain" });
    return;
  }
  await ask.text("accessKeyId", "Access key ID");
  await ask.secret("secretAccessKey", "Secret access key");
}

async function askForAzure(ask: Questions): Promise<void> {
  await ask.text("container", "Container");
  await ask.optional("prefix", { message: "Prefix in the container", none: "none" });
  const way = await ask.choose("Credentials", [
    { name: "a connection string", value: "connection" },
    { name: "a shared access signature", value: "sas" },
    { name: "the managed identity of this machine", value: "identity" },
  ]);
  if (way === "connection") {
    await ask.secret("connection", "Connection string");
    return;
  }
  await ask.text("account", "Storage account");
  if (way === "sas") await ask.secret("sas", "Shared access signature");
  else await ask.optional("clientId", { message: "Client ID of the identity", none: "the machine's own" });
}

async function askForFtp(ask: Questions): Promise<void> {
  await ask.text("host", "Host");
  const tls = await ask.choose("Encryption of the connection", [
    { name: "TLS after connecting (explicit)", value: "explicit" },
    { name: "TLS from the start (implicit)", value: "implicit" },
    { name: "none: everybody on the way can read password and backups", value: "off" },
  ]);
  ask.fields["tls"] = tls;
  await ask.port(tls === "implicit" ? 990 : 21);
  await ask.text("user", "User");
  await ask.secret("password", "Password");
  await ask.text("path", "Folder on the server", "/");
  if (tls !== "off")
    await ask.optional("ca", { message: "PEM file with its certificate authority", none: "the system's" });
}
