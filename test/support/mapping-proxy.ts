import { connect, createServer, type Socket } from "node:net";

export interface MappingProxy extends AsyncDisposable {
  readonly port: number;
}

/** A pooler of the worst kind: whatever database a PostgreSQL client asks for, it gets `database`. */
export async function startMappingProxy(target: {
  readonly port: number;
  readonly database: string;
}): Promise<MappingProxy> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(target.port, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        client.destroy();
        upstream.destroy();
      });
    }
    client.once("data", (startup: Buffer) => {
      upstream.write(withDatabase(startup, target.database));
      client.pipe(upstream);
    });
    upstream.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("no port");
  return {
    port: address.port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A StartupMessage is its length, a version and pairs of texts that end with a zero byte. A cancel request has no pairs. */
function withDatabase(message: Buffer, database: string): Buffer {
  if (message.length <= 16) return message;
  const texts = message.toString("latin1", 8).split("\0");
  const at = texts.findIndex((text, index) => index % 2 === 0 && text === "database");
  texts[at + 1] = database;
  const rest = Buffer.from(texts.join("\0"), "latin1");
  const head = Buffer.from(message.subarray(0, 8));
  head.writeInt32BE(8 + rest.length);
  return Buffer.concat([head, rest]);
}
