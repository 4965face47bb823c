import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/**
 * Systems take the ports of outgoing connections from higher numbers (Linux from 32,768, others from 49,152): so nobody takes one
 * of these between the look at it and the start of the server.
 */
const FIRST_PORT = 15_000;
const PORTS = 17_000;
const TRIES = 100;

/** Finds a port of this machine on which nobody listens. */
export async function freePort(): Promise<number> {
  for (let turn = 0; turn < TRIES; turn += 1) {
    const port = FIRST_PORT + randomInt(PORTS);
    if (await isFree(port)) return port;
  }
  throw new Error("no free port was found");
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return await new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
