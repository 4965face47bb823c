import { connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

export interface ThrottlingProxy extends AsyncDisposable {
  readonly port: number;
}

/** More at once would be a burst that no line has. */
const SLICE_BYTES = 16 * 1024;

/** Forwards one local port to another over a line of so many bits a second in each direction, shared by all connections. */
export async function startThrottlingProxy(targetPort: number, bitsPerSecond: number): Promise<ThrottlingProxy> {
  const sockets = new Set<Socket>();
  const msPerByte = 8000 / bitsPerSecond;
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ port: targetPort, host: "127.0.0.1", noDelay: true });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket));
    }
    void forward(client, upstream, up);
    void forward(upstream, client, down);
  });
  const [up, down] = [{ freeAt: 0 }, { freeAt: 0 }];
  async function forward(from: Socket, to: Socket, line: { freeAt: number }): Promise<void> {
    try {
      for await (const bytes of from as AsyncIterable<Buffer>) {
        for (let at = 0; at < bytes.length; at += SLICE_BYTES) {
          const slice = bytes.subarray(at, at + SLICE_BYTES);
          line.freeAt = Math.max(line.freeAt, performance.now()) + slice.length * msPerByte;
          const waitMs = line.freeAt - performance.now();
          // A timer is late by up to a millisecond: what is owed is kept in `freeAt`.
          if (waitMs > 1) await sleep(waitMs);
          to.write(slice);
        }
      }
      to.end();
    } catch {
      to.destroy();
    }
  }
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    port: typeof address === "object" && address ? address.port : 0,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
