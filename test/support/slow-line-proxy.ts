import { type Forwarder, startForwarder } from "./forwarder.ts";

export interface SlowLineProxy extends Forwarder {
  /** Bytes that the server sent since the last reset. */
  readonly received: number;
  reset(): void;
}

const TICK_MS = 10;

/** Forwards a local port to another one; what the server sends arrives at so many bytes a second, all connections together. */
export async function startSlowLineProxy(targetPort: number, bytesPerSecond: number): Promise<SlowLineProxy> {
  let received = 0;
  /** When the line will have carried what was given to it. */
  let freeAt = 0;
  const forwarder = await startForwarder(targetPort, {
    carry(from, to, direction) {
      if (direction === "up") return void from.on("data", (bytes) => to.write(bytes));
      from.on("data", (bytes) => {
        received += bytes.length;
        const now = performance.now();
        freeAt = Math.max(now, freeAt) + (bytes.length / bytesPerSecond) * 1000;
        to.write(bytes);
        if (freeAt - now < TICK_MS) return;
        from.pause();
        setTimeout(() => from.resume(), freeAt - now);
      });
    },
  });
  return {
    ...forwarder,
    get received() {
      return received;
    },
    reset() {
      received = 0;
    },
  };
}
