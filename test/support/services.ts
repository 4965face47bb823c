import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chownSync, existsSync } from "node:fs";
import { chmod, chown, mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "vitest";
import { freePort } from "../../src/usecases/demo/free-port.ts";

const UNPACKED = fileURLToPath(new URL("../../.services/root", import.meta.url));
// User and group "daemon" of Debian. OpenSSH takes "nobody" for a locked account.
const DAEMON = 1;
const isRoot = process.getuid?.() === 0;

/** A program of Debian's packages: installed, or unpacked by `npm run services`. */
export interface Program {
  readonly path: string;
  /** Folder below which its package was unpacked; empty when it is installed. */
  readonly root: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Finds a program; undefined when `npm run services` was not run. */
export function findProgram(name: string): Program | undefined {
  for (const root of [UNPACKED, ""]) {
    for (const folder of ["usr/sbin", "usr/bin"]) {
      const path = `${root}/${folder}/${name}`;
      if (existsSync(path)) return { path, root, env: root === "" ? process.env : unpackedEnv(root) };
    }
  }
  return undefined;
}

function unpackedEnv(root: string): Readonly<Record<string, string | undefined>> {
  const libraries = `${root}/usr/lib/x86_64-linux-gnu`;
  return {
    ...process.env,
    PATH: `${root}/usr/bin:${root}/usr/sbin:${process.env.PATH}`,
    LD_LIBRARY_PATH: `${libraries}:${libraries}/ceph:${root}/lib/x86_64-linux-gnu`,
    PYTHONPATH: `${root}/usr/lib/python3/dist-packages`,
  };
}

/** Runs what needs these programs: a failure in CI when one is missing, elsewhere a skip that names it. */
export function withPrograms(names: readonly string[], define: () => void): void {
  const missing = names.filter((name) => findProgram(name) === undefined);
  if (missing.length === 0) {
    define();
    return;
  }
  failInCi(`needs ${missing.join(", ")}: npm run services`);
}

/** What a machine lacks for tests: a failure in CI, elsewhere a skip that names it. */
export function failInCi(title: string): void {
  if (process.env.CI) {
    test(title, () => {
      throw new Error(title);
    });
  } else {
    test.skip(title, () => undefined);
  }
}

/** A server of the tests' own in a folder of its own; disposal stops it and deletes the folder. */
export interface Service extends AsyncDisposable {
  readonly port: number;
  readonly folder: string;
}

/** Makes a folder for a server that must not run as root; it belongs to the user who will run it. */
export async function makeServiceFolder(name: string, ...inside: readonly string[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `rowkeep-${name}-`));
  await chmod(folder, 0o755);
  for (const part of ["", ...inside]) {
    await mkdir(join(folder, part), { recursive: true });
    if (isRoot) await chown(join(folder, part), DAEMON, DAEMON);
  }
  return folder;
}

/** Writes a file that only the server's user can read. */
export async function writeServiceFile(path: string, text: string): Promise<void> {
  await writeFile(path, text, { mode: 0o600 });
  if (isRoot) chownSync(path, DAEMON, DAEMON);
}

/** Name of the user as whom the servers run. */
export function serviceUser(): string {
  return isRoot ? "daemon" : execFileSync("id", ["-un"], { encoding: "utf8" }).trim();
}

/** Starts a server in the foreground as an ordinary user and waits until its port answers. */
export async function startServer(
  program: Pick<Program, "path" | "env">,
  args: readonly string[],
  { port, folder }: { readonly port: number; readonly folder: string },
): Promise<Service> {
  const child = spawn(program.path, args, {
    cwd: folder,
    env: { ...program.env, HOME: folder },
    stdio: ["ignore", "pipe", "pipe"],
    ...(isRoot ? { uid: DAEMON, gid: DAEMON } : {}),
  });
  let said = "";
  const hear = (text: Buffer) => {
    said = `${said}${text.toString()}`.slice(-4000);
  };
  child.stdout.on("data", hear);
  child.stderr.on("data", hear);
  child.on("error", (error) => {
    said += error.message;
  });
  try {
    await untilPortAnswers(port, () => child.exitCode === null && child.signalCode === null && child.pid !== undefined);
  } catch (error) {
    await endProcess(child);
    throw new Error(`${program.path} did not start: ${said}`, { cause: error });
  }
  return {
    port,
    folder,
    async [Symbol.asyncDispose]() {
      await endProcess(child);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

export async function untilPortAnswers(port: number, isAlive: () => boolean, timeoutMs = 30_000): Promise<void> {
  for (const end = Date.now() + timeoutMs; Date.now() < end; ) {
    if (!isAlive()) throw new Error("it ended");
    if (await answers(port)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`nothing answered on port ${port} within ${timeoutMs} ms`);
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

async function endProcess(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), 3000);
  await ended;
  clearTimeout(late);
}

export interface SshServer extends Service {
  readonly user: string;
  readonly privateKey: string;
  /** `SHA256:…` of its host key. */
  readonly hostKey: string;
}

/**
 * Starts an OpenSSH server that gives SFTP to the holder of a key; `without` names requests that it does not know, like
 * `posix-rename`.
 */
export async function startSshServer({ without }: { readonly without?: string } = {}): Promise<SshServer> {
  const sshd = programOf("sshd");
  const keygen = programOf("ssh-keygen");
  const folder = await makeServiceFolder("sshd", "data");
  for (const name of ["host", "user"]) {
    execFileSync(keygen.path, ["-q", "-t", "ed25519", "-N", "", "-f", join(folder, name)], { env: keygen.env });
    if (isRoot) chownSync(join(folder, name), DAEMON, DAEMON);
  }
  const port = await freePort();
  await writeServiceFile(
    join(folder, "sshd.conf"),
    `Port ${port}
ListenAddress 127.0.0.1
HostKey ${join(folder, "host")}
AuthorizedKeysFile ${join(folder, "user.pub")}
PidFile ${join(folder, "sshd.pid")}
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp${without === undefined ? "" : ` -P ${without}`}
`,
  );
  const service = await startServer(sshd, ["-D", "-e", "-f", join(folder, "sshd.conf")], { port, folder });
  const shown = execFileSync(keygen.path, ["-lf", join(folder, "host.pub")], { env: keygen.env, encoding: "utf8" });
  return {
    ...service,
    user: serviceUser(),
    privateKey: await readFile(join(folder, "user"), "utf8"),
    hostKey: shown.split(" ")[1] ?? "",
  };
}

/** Finds a program that `withPrograms` has promised. */
export function programOf(name: string): Program {
  const program = findProgram(name);
  if (program === undefined) throw new Error(`${name} is missing: npm run services`);
  return program;
}

export interface S3Server extends Service {
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** Starts a Ceph cluster in memory with its S3 gateway; it takes some twelve seconds. */
export async function startS3Server(): Promise<S3Server> {
  const ceph = programOf("ceph");
  const folder = await makeServiceFolder("ceph");
  const port = await freePorts(3);
  const script = fileURLToPath(new URL("../../scripts/services/ceph.sh", import.meta.url));
  const stop = async () => {
    for (const name of ["client.rgw", "osd.0", "mon.a"]) await endDaemon(join(folder, "run", `${name}.pid`));
    await rm(folder, { recursive: true, force: true });
  };
  const log = await open(join(folder, "start.log"), "w");
  try {
    // The daemons keep the descriptors that they inherit: a pipe would never end.
    const child = spawn("bash", [script, folder, String(port), ceph.root], {
      env: { ...ceph.env, HOME: folder },
      stdio: ["ignore", log.fd, log.fd],
      ...(isRoot ? { uid: DAEMON, gid: DAEMON } : {}),
    });
    const code = await new Promise((resolve, reject) => child.once("error", reject).once("exit", resolve));
    if (code !== 0) throw new Error(`ceph did not start: ${await readFile(join(folder, "start.log"), "utf8")}`);
    await untilPortAnswers(port, () => true);
  } catch (error) {
    await stop();
    throw error;
  } finally {
    await log.close();
  }
  return {
    port,
    folder,
    endpoint: `http://127.0.0.1:${port}`,
    accessKeyId: "AKTEST",
    secretAccessKey: "SKTESTSKTEST",
    [Symbol.asyncDispose]: stop,
  };
}

/** Finds the first of `count` free ports in a row. */
async function freePorts(count: number): Promise<number> {
  for (let tries = 0; tries < 50; tries++) {
    const first = await freePort();
    const taken = await Promise.all(Array.from({ length: count }, (_, index) => answers(first + index)));
    if (first + count < 65_536 && !taken.includes(true)) return first;
  }
  throw new Error("no free ports in a row");
}

/** Ends a process that went into the background and left its id in a file. */
async function endDaemon(pidFile: string): Promise<void> {
  const pid = Number(await readFile(pidFile, "utf8").catch(() => ""));
  if (!Number.isInteger(pid) || pid <= 1) return;
  const signalTo = (signal: NodeJS.Signals | 0) => {
    try {
      return process.kill(pid, signal);
    } catch {
      return false;
    }
  };
  signalTo("SIGTERM");
  for (let tries = 0; tries < 50 && signalTo(0); tries++) await new Promise((resolve) => setTimeout(resolve, 100));
  signalTo("SIGKILL");
}

export interface AzureServer extends Service {
  readonly connection: string;
  /** Address of the account's blobs. */
  readonly endpoint: string;
  readonly account: string;
  readonly key: string;
  /** PEM of the certificate, its own authority; empty without TLS. */
  readonly ca: string;
}

/** Starts azurite, Microsoft's emulator of Azure Blob Storage. With TLS it takes tokens too, whoever signed them. */
export async function startAzureServer({ tls = false } = {}): Promise<AzureServer> {
  const folder = await makeServiceFolder("azurite");
  const certificate = tls ? makeCertificate(folder) : undefined;
  const port = await freePort();
  const main = fileURLToPath(new URL("../../node_modules/azurite/dist/src/blob/main.js", import.meta.url));
  // In files, each block is written to a data base as well: twice the processor time.
  const args = ["--blobPort", String(port), "--inMemoryPersistence"];
  const quiet = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"];
  const secure = certificate ? ["--oauth", "basic", "--cert", certificate.path, "--key", certificate.key] : [];
  const service = await startServer(
    { path: process.execPath, env: process.env },
    [main, ...args, ...quiet, ...secure],
    {
      port,
      folder,
    },
  );
  // The account that every azurite has, published in its documentation.
  const key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
  const account = "devstoreaccount1";
  const endpoint = `${tls ? "https" : "http"}://127.0.0.1:${port}/${account}`;
  const connection = `DefaultEndpointsProtocol=http;AccountName=${account};AccountKey=${key};BlobEndpoint=${endpoint};`;
  const ca = certificate ? await readFile(certificate.path, "utf8") : "";
  return { ...service, connection, endpoint, account, key, ca };
}

export interface FtpServer extends Service {
  readonly tls: "off" | "explicit" | "implicit";
  readonly user: string;
  readonly password: string;
  /** PEM of the certificate of the server: its own authority. */
  readonly ca: string;
  /** Ends the server and every session at once, as a power cut would; its folder stays until disposal. */
  kill(): Promise<void>;
  /** Starts it again on the same port and folder after `kill`. */
  restart(): Promise<void>;
}

/**
 * Starts proftpd with one user whose home is `data` in its folder. `off` speaks no TLS, `explicit` demands AUTH TLS and
 * resumed sessions on data connections, `implicit` begins with TLS. `directives` are more lines of its settings.
 */
export async function startFtpServer(tls: FtpServer["tls"], directives: readonly string[] = []): Promise<FtpServer> {
  const proftpd = programOf("proftpd");
  const openssl = programOf("openssl");
  const folder = await makeServiceFolder("proftpd", "data", "run");
  const [user, password] = [serviceUser(), "canary-ftp-password"];
  const hash = execFileSync(openssl.path, ["passwd", "-6", password], { env: openssl.env, encoding: "utf8" }).trim();
  const [uid, gid] = isRoot ? [DAEMON, DAEMON] : [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
  await writeServiceFile(join(folder, "passwd"), `${user}:${hash}:${uid}:${gid}::${join(folder, "data")}:/bin/sh\n`);
  await writeServiceFile(join(folder, "group"), `${user}:x:${gid}:${user}\n`);
  const { path: certificate } = makeCertificate(folder);
  const port = await freePort();
  await writeServiceFile(
    join(folder, "proftpd.conf"),
    `ServerName rowkeep-test
ServerType standalone
DefaultAddress 127.0.0.1
Port ${port}
UseIPv6 off
UseReverseDNS off
User ${user}
Group ${user}
ModulePath ${proftpd.root}/usr/lib/proftpd
PidFile ${folder}/run/proftpd.pid
ScoreboardFile ${folder}/run/scoreboard
DelayTable none
SystemLog ${folder}/run/system.log
TransferLog ${folder}/run/transfer.log
WtmpLog off
AuthOrder mod_auth_file.c
AuthUserFile ${folder}/passwd
AuthGroupFile ${folder}/group
RequireValidShell off
AllowOverwrite on
AllowStoreRestart on
AllowRetrieveRestart on
UseSendfile off
${tls === "off" ? "" : tlsDirectives(tls, folder)}
${directives.join("\n")}
`,
  );
  const args = ["--nodaemon", "--config", join(folder, "proftpd.conf")];
  const service = await startServer(proftpd, args, { port, folder });
  const kill = async () => {
    const pid = Number(await readFile(join(folder, "run/proftpd.pid"), "utf8"));
    for (const one of [pid, ...(await childrenOf(pid))]) process.kill(one, "SIGKILL");
  };
  let restarted: Service | undefined;
  const restart = async () => {
    restarted = await startServer(proftpd, args, { port, folder });
  };
  return {
    ...service,
    tls,
    user,
    password,
    ca: await readFile(certificate, "utf8"),
    kill,
    restart,
    async [Symbol.asyncDispose]() {
      await restarted?.[Symbol.asyncDispose]();
      await service[Symbol.asyncDispose]();
    },
  };
}

/** Writes a key and its certificate for this machine into a folder; it is its own authority. */
function makeCertificate(folder: string): { readonly key: string; readonly path: string } {
  const openssl = programOf("openssl");
  const [key, path] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  execFileSync(
    openssl.path,
    ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"].concat(
      ["-subj", "/CN=rowkeep-test", "-addext", "subjectAltName=IP:127.0.0.1"],
      ["-keyout", key, "-out", path],
    ),
    { env: openssl.env, stdio: "ignore" },
  );
  if (isRoot) for (const made of [key, path]) chownSync(made, DAEMON, DAEMON);
  return { key, path };
}

/** Finds the processes that a process of ours has started. */
async function childrenOf(parent: number): Promise<readonly number[]> {
  const pids = (await readdir("/proc")).map(Number).filter(Number.isInteger);
  const parents = await Promise.all(
    pids.map(async (pid) => {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
      return Number(/\) \S (\d+)/.exec(stat)?.[1]);
    }),
  );
  return pids.filter((_, index) => parents[index] === parent);
}

function tlsDirectives(tls: "explicit" | "implicit", folder: string): string {
  return `LoadModule mod_tls.c
TLSEngine on
TLSLog ${folder}/run/tls.log
TLSECCertificateFile ${folder}/cert.pem
TLSECCertificateKeyFile ${folder}/key.pem
TLSRequired on
${tls === "implicit" ? "TLSOptions UseImplicitSSL" : ""}`;
}
