import { createHash } from "node:crypto";
import { connect } from "node:net";
import { orAborted } from "../base/or-aborted.ts";
import type { SftpSettings } from "./destination-settings.ts";
import { type ErrorMeaning, networkMeaning, remoteError } from "./network-errors.ts";

const CONNECT_MS = 20_000;

/**
 * Asks an SSH server for its host key without logging in: `SHA256:…`. It is only what answers now; whether it is the right
 * server somebody must know who compares it. Fails with kind `destination`.
 */
export async function readHostKey(
  { host, port = 22 }: Pick<SftpSettings, "host" | "port">,
  { signal }: { readonly signal: AbortSignal },
): Promise<string> {
  const { default: ssh2 } = await import("ssh2");
  const client = new ssh2.Client();
  const socket = connect({ host, port, timeout: CONNECT_MS });
  const offered = new Promise<string>((resolve, reject) => {
    socket.once("timeout", () => socket.destroy(Object.assign(new Error("connect timed out"), { code: "ETIMEDOUT" })));
    socket.once("error", reject);
    client.once("error", reject);
    client.once("close", () => reject(new Error("the connection was closed")));
    client.connect({
      sock: socket,
      username: "rowkeep",
      readyTimeout: CONNECT_MS,
      hostVerifier: (key: Buffer) => {
        resolve(`SHA256:${createHash("sha256").update(key).digest("base64").replace(/=+$/, "")}`);
        return false;
      },
    });
  });
  try {
    return await orAborted(offered, signal);
  } catch (error) {
    throw remoteError(error, `ask ${host}:${port} for its host key`, meaningOf);
  } finally {
    client.on("error", () => undefined);
    socket.on("error", () => undefined);
    client.destroy();
    socket.destroy();
  }
}

function meaningOf(error: unknown): ErrorMeaning {
  return networkMeaning(error) ?? { code: "failed", words: "it does not answer as an SSH server does" };
}
