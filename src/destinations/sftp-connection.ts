import { createHash } from "node:crypto";
import { connect, type Socket } from "node:net";
import type { Client, ConnectConfig, SFTPWrapper } from "ssh2";
import { messageOf } from "../base/errors.ts";
import { orAborted } from "../base/or-aborted.ts";
import { destinationError } from "./destination.ts";
import type { SftpSettings } from "./destination-settings.ts";
import { gatherWrites } from "./gather-writes.ts";
import { type ErrorMeaning, remoteError } from "./network-errors.ts";

const CONNECT_MS = 20_000;
const KEEPALIVE_MS = 15_000;
/** What every server must take and give in one packet. */
const LEAST_PACKET_BYTES = 32 * 1024;
/** OpenSSH takes 255 KiB; as a multiple of the least one it fills whole packets of the line below. */
const MOST_PACKET_BYTES = 224 * 1024;

export type SftpDone<T> = (error: Error | null | undefined, value?: T) => void;

/** One SFTP channel to a server, opened when first needed and again after it was lost. */
export class SftpConnection implements AsyncDisposable {
  readonly #settings: SftpSettings;
  readonly #name: string;
  #opening: Promise<OpenChannel> | undefined;

  constructor(settings: SftpSettings, name: string) {
    this.#settings = settings;
    this.#name = name;
  }

  /** Runs one request. Rejects with the request's own error, or the signal's reason at once. */
  async call<T>(signal: AbortSignal, request: (sftp: SFTPWrapper, done: SftpDone<T>) => void): Promise<T> {
    signal.throwIfAborted();
    const channel = await orAborted(this.#channel(), signal);
    const answer = new Promise<T>((resolve, reject) => {
      channel.pending.add(reject);
      request(channel.sftp, (error, value) => {
        channel.pending.delete(reject);
        if (error) reject(error);
        else resolve(value as T);
      });
    });
    return orAborted(answer, signal);
  }

  /**
   * Bytes of data that one request may carry: what every server must take, or what this one says of itself. With larger ones
   * fewer answers come, and each answer is a packet to decrypt.
   */
  async packetBytes(signal: AbortSignal): Promise<number> {
    const { sftp } = await orAborted(this.#channel(), signal);
    // The library learns them from the server and tells them nowhere else; what it may call otherwise one day is left unused.
    const { _maxReadLen, _maxWriteLen } = sftp as { readonly _maxReadLen?: unknown; readonly _maxWriteLen?: unknown };
    const limits = [_maxReadLen, _maxWriteLen].map((limit) => (Number.isSafeInteger(limit) ? Number(limit) : 0));
    return Math.max(LEAST_PACKET_BYTES, Math.min(MOST_PACKET_BYTES, ...limits));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const channel = await this.#opening?.catch(() => undefined);
    channel?.close();
  }

  #channel(): Promise<OpenChannel> {
    if (this.#opening === undefined) {
      const opening = openChannel(this.#settings, this.#name, () => {
        if (this.#opening === opening) this.#opening = undefined;
      });
      this.#opening = opening;
    }
    return this.#opening;
  }
}

interface OpenChannel {
  readonly sftp: SFTPWrapper;
  readonly pending: Set<(error: unknown) => void>;
  close(): void;
}

async function openChannel(settings: SftpSettings, name: string, onLost: () => void): Promise<OpenChannel> {
  const pending = new Set<(error: unknown) => void>();
  try {
    const socket = await connectSocket(settings);
    const { default: ssh2 } = await import("ssh2");
    const client = new ssh2.Client();
    const lost = (error?: unknown) => {
      onLost();
      for (const reject of pending) reject(error ?? cutError());
      pending.clear();
    };
    client.on("close", () => lost());
    const close = () => {
      client.end();
      socket.destroySoon();
    };
    try {
      const sftp = await startSftp(client, socket, settings, name);
      client.on("error", lost);
      sftp.on("error", lost);
      sftp.on("close", () => {
        lost();
        client.end();
      });
      return { sftp, pending, close };
    } catch (error) {
      client.on("error", () => undefined);
      client.destroy();
      socket.destroy();
      throw error;
    }
  } catch (error) {
    onLost();
    throw remoteError(error, `connect to ${name}`, connectMeaning);
  }
}

function connectSocket({ host, port = 22 }: SftpSettings): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, timeout: CONNECT_MS });
    // Without it, every small request waits for the acknowledgement of the one before: some twenty times slower.
    socket.setNoDelay(true);
    socket.once("timeout", () => socket.destroy(Object.assign(new Error("connect timed out"), { code: "ETIMEDOUT" })));
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.setTimeout(0);
      socket.off("error", reject);
      gatherWrites(socket);
      resolve(socket);
    });
  });
}

function startSftp(client: Client, socket: Socket, settings: SftpSettings, name: string): Promise<SFTPWrapper> {
  let offered = "";
  return new Promise((resolve, reject) => {
    client.once("error", (error) => {
      reject(offered === "" || offered === settings.hostKey ? error : wrongHostKey(name, offered, error));
    });
    client.once("close", () => reject(cutError()));
    client.once("ready", () => client.sftp((error, sftp) => (error ? reject(error) : resolve(sftp))));
    try {
      client.connect({
        sock: socket,
        username: settings.user,
        ...credentialsOf(settings),
        readyTimeout: CONNECT_MS,
        keepaliveInterval: KEEPALIVE_MS,
        keepaliveCountMax: 3,
        hostVerifier: (key: Buffer) => {
          offered = `SHA256:${createHash("sha256").update(key).digest("base64").replace(/=+$/, "")}`;
          return offered === settings.hostKey;
        },
      });
    } catch (error) {
      // The library reads the private key now, and its message tells what is wrong with it, not what is in it.
      reject(
        destinationError(`cannot connect to ${name}: the private key or passphrase is not usable`, "denied", {
          hint: "Give the private key in OpenSSH or PEM format, with its passphrase if it has one.",
          cause: error,
        }),
      );
    }
  });
}

function credentialsOf({ password, privateKey, passphrase, agent }: SftpSettings): ConnectConfig {
  const socket = process.env.SSH_AUTH_SOCK;
  return {
    ...(password === undefined ? {} : { password }),
    ...(privateKey === undefined ? {} : { privateKey }),
    ...(passphrase === undefined ? {} : { passphrase }),
    ...(agent && socket ? { agent: socket } : {}),
  };
}

function wrongHostKey(name: string, offered: string, cause: unknown): Error {
  return destinationError(`cannot connect to ${name}: the server shows another host key, ${offered}`, "denied", {
    hint: "Ask the server's administrator for its key; enter it as hostKey only when it is the same.",
    cause,
  });
}

function cutError(): Error {
  return Object.assign(new Error("the connection was closed"), { code: "ECONNRESET" });
}

function connectMeaning(error: unknown): ErrorMeaning | undefined {
  const { level } = error as { level?: unknown };
  if (level === "client-authentication") {
    const hint = "Check user, password and key, and that the server accepts them.";
    return { code: "denied", words: "the server accepts none of the credentials", hint };
  }
  if (level === "client-timeout") return { code: "unreachable", words: "the server does not answer" };
  if (level === "client-socket") return { code: "unreachable", words: "the connection was cut" };
  if (level === "protocol" || level === "handshake") {
    return { code: "failed", words: `the server speaks otherwise (${messageOf(error)})` };
  }
  return undefined;
}
