import { type Forwarder, startForwarder } from "./forwarder.ts";

export interface StallingProxy extends Forwarder {
  /** From now on nothing is passed on in either direction, and nothing is closed: a network that swallows packets. */
  stall(): void;
}

/** Forwards one local port to another until it is told to stall or to cut. */
export async function startStallingProxy(targetPort: number): Promise<StallingProxy> {
  let stalled = false;
  const forwarder = await startForwarder(targetPort, {
    carry: (from, to) =>
      from.on("data", (chunk) => {
        if (!stalled) to.write(chunk);
      }),
    closed(to) {
      if (!stalled) to.destroy();
    },
  });
  return {
    ...forwarder,
    stall() {
      stalled = true;
    },
  };
}
