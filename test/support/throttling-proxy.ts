import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { type Forwarder, startForwarder } from "./forwarder.ts";

/** More at once would be a burst that no line has. */
const SLICE_BYTES = 16 * 1024;

/** Forwards one local port to another over a line of so many bits a second in each direction, shared by all connections. */
export async function startThrottlingProxy(targetPort: number, bitsPerSecond: number): Promise<Forwarder> {
  const msPerByte = 8000 / bitsPerSecond;
  const lines = { up: { freeAt: 0 }, down: { freeAt: 0 } };
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
  return startForwarder(targetPort, {
    carry: (from, to, direction) => void forward(from, to, lines[direction]),
    // What is on the line arrives after its sender is gone.
    closed: () => undefined,
  });
}
