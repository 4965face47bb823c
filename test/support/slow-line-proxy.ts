import { connect, createServer, type Socket } from "node:net";

export interface SlowLineProxy extends AsyncDisposable {
  readonly port: number;
  /** Bytes that the server sent since the last reset. */
  readonly received: number;
  reset(): void;
}

const TICK_MS = 10;

/** Forwards a local port to another one; what the server sends arrives at so many bytes a second, all connections together. */
export async function startSlowLineProxy(targetPort: number, bytesPerSecond: number): Promise<SlowLineProxy> {
  const sockets = new Set<Socket>();
  let received = 0;
  /** When the line will have carried what was given to it. */
  let freeAt = 0;
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ port: targetPort, host: "127.0.0.1", noDelay: true });
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
    }
    client.on("data", (bytes) => upstream.write(bytes));
    upstream.on("data", (bytes) => {
      received += bytes.length;
      const now = performance.now();
      freeAt = Math.max(now, freeAt) + (bytes.length / bytesPerSecond) * 1000;
      client.write(bytes);
      if (freeAt - now < TICK_MS) return;
      upstream.pause();
      setTimeout(() => upstream.resume(), freeAt - now);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    port: typeof address === "object" && address ? address.port : 0,
    get received() {
      return received;
    },
    reset() {
      received = 0;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
