import { connect, createServer, type Socket } from "node:net";

export interface CountingProxy extends AsyncDisposable {
  readonly port: number;
  /** Pieces that clients sent since the last reset: what a protocol says, whether or not anybody can read it. */
  readonly pieces: number;
  /** Bytes since the last reset, by direction. */
  readonly sent: number;
  readonly received: number;
  reset(): void;
  /** Calls `act` instead of passing on the piece with this number, counted from 1, and is silent from then on. */
  stopAt(piece: number, act: () => void): void;
  /** Ends every connection and is what it was in the beginning. */
  restart(): void;
}

/** Forwards a local port to another one and counts. */
export async function startCountingProxy(targetPort: number): Promise<CountingProxy> {
  const sockets = new Set<Socket>();
  let [pieces, sent, received] = [0, 0, 0];
  let stop: { readonly piece: number; readonly act: () => void } | undefined;
  let isSilent = false;
  const server = createServer((client) => {
    const upstream = connect(targetPort, "127.0.0.1");
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.setNoDelay(true);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        sockets.delete(from);
        if (!isSilent) to.destroy();
      });
      from.on("end", () => {
        if (!isSilent) to.end();
      });
      // A slow reader on one side must slow down the other one.
      to.on("drain", () => from.resume());
    }
    client.on("data", (chunk) => {
      if (isSilent) return;
      pieces++;
      sent += chunk.length;
      if (stop && pieces >= stop.piece) {
        isSilent = true;
        stop.act();
      } else if (!upstream.write(chunk)) client.pause();
    });
    upstream.on("data", (chunk) => {
      if (isSilent) return;
      received += chunk.length;
      if (!client.write(chunk)) upstream.pause();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const reset = () => {
    [pieces, sent, received] = [0, 0, 0];
  };
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: typeof address === "object" && address ? address.port : 0,
    get pieces() {
      return pieces;
    },
    get sent() {
      return sent;
    },
    get received() {
      return received;
    },
    reset,
    stopAt(piece, act) {
      reset();
      stop = { piece, act };
    },
    restart() {
      cut();
      reset();
      stop = undefined;
      isSilent = false;
    },
    async [Symbol.asyncDispose]() {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
