import type { Socket } from "node:net";
import { type Forwarder, startForwarder } from "./forwarder.ts";

export interface CountingProxy extends Forwarder {
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
  let [pieces, sent, received] = [0, 0, 0];
  let stop: { readonly piece: number; readonly act: () => void } | undefined;
  let isSilent = false;
  const up = (chunk: Buffer, client: Socket, upstream: Socket) => {
    pieces++;
    sent += chunk.length;
    if (stop && pieces >= stop.piece) {
      isSilent = true;
      stop.act();
    } else if (!upstream.write(chunk)) client.pause();
  };
  const down = (chunk: Buffer, upstream: Socket, client: Socket) => {
    received += chunk.length;
    if (!client.write(chunk)) upstream.pause();
  };
  const forwarder = await startForwarder(targetPort, {
    carry(from, to, direction) {
      from.on("end", () => {
        if (!isSilent) to.end();
      });
      // A slow reader on one side must slow down the other one.
      to.on("drain", () => from.resume());
      from.on("data", (chunk) => {
        if (!isSilent) (direction === "up" ? up : down)(chunk, from, to);
      });
    },
    closed(to) {
      if (!isSilent) to.destroy();
    },
  });
  const reset = () => {
    [pieces, sent, received] = [0, 0, 0];
  };
  return {
    ...forwarder,
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
      forwarder.cut();
      reset();
      stop = undefined;
      isSilent = false;
    },
  };
}
