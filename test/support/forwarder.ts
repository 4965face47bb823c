import { connect, createServer, type Socket } from "node:net";

export interface Forwarder extends AsyncDisposable {
  readonly port: number;
  /** Connections that were accepted so far. */
  accepted(): number;
  /** Ends every connection in the middle of whatever it carries. */
  cut(): void;
}

export interface ForwarderWays {
  /** Carries what one side of a new connection sends to the other one; called for both directions. */
  readonly carry: (from: Socket, to: Socket, direction: "up" | "down") => void;
  /** What one side learns of when the other one closed; without it, it is closed too. */
  readonly closed?: (to: Socket) => void;
}

/** Listens on a local port and connects each of its clients to another one. */
export async function startForwarder(targetPort: number, { carry, closed }: ForwarderWays): Promise<Forwarder> {
  const sockets = new Set<Socket>();
  let accepted = 0;
  const server = createServer({ noDelay: true }, (client) => {
    accepted += 1;
    const upstream = connect({ port: targetPort, host: "127.0.0.1", noDelay: true });
    for (const [from, to, direction] of [
      [client, upstream, "up"],
      [upstream, client, "down"],
    ] as const) {
      sockets.add(from);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        sockets.delete(from);
        if (closed) closed(to);
        else to.destroy();
      });
      carry(from, to, direction);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("no port");
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: address.port,
    accepted: () => accepted,
    cut,
    async [Symbol.asyncDispose]() {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
