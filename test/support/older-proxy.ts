import { connect, createServer, type Socket } from "node:net";

export interface OlderProxy extends AsyncDisposable {
  readonly port: number;
}

/** Forwards to a server of version 15 that says it were one of version 13: `server_version_num` is 13… in what it answers. */
export async function startOlderProxy(targetPort: number): Promise<OlderProxy> {
  const sockets = new Set<Socket>();
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
    client.pipe(upstream);
    upstream.on("data", (bytes: Buffer) => {
      for (let at = bytes.indexOf("1500"); at >= 0; at = bytes.indexOf("1500", at + 1)) {
        if (/^1500\d\d$/.test(bytes.toString("latin1", at, at + 6)) && bytes.length < 2000) bytes.write("13", at);
      }
      client.write(bytes);
    });
  });
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
