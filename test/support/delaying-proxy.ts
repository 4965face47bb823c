import { type Forwarder, startForwarder } from "./forwarder.ts";

/** Forwards one local port to another, every byte so much later in each direction: a fast line to a far place. */
export async function startDelayingProxy(targetPort: number, delayMs: number): Promise<Forwarder> {
  return startForwarder(targetPort, {
    // Timers of the same length fire in the order in which they were set.
    carry: (from, to) => from.on("data", (bytes) => setTimeout(() => to.write(bytes), delayMs)),
    closed: (to) => setTimeout(() => to.destroy(), delayMs),
  });
}
