/** A thread that computes for longer than this part of the time is the one that the others wait for. */
const MAX_BUSY = 0.85;
const SAMPLE_MS = 100;

export interface ThreadClock {
  /** Milliseconds since some moment. */
  now(): number;
  /** Milliseconds for which this thread had a processor since some moment. */
  used(): number;
}

/**
 * Tells whether this thread has time left for work that another one could do. Time in which it waits for a processor counts as
 * left: another thread would wait for it too.
 */
export class SpareTime {
  readonly #clock: ThreadClock;
  #sampledAt: number;
  #used: number;
  #hasSome = true;

  constructor(clock: ThreadClock = ownClock) {
    this.#clock = clock;
    this.#sampledAt = clock.now();
    this.#used = clock.used();
  }

  /** Looks at how busy the thread was lately, a tenth of a second or more. */
  get hasSome(): boolean {
    const elapsed = this.#clock.now() - this.#sampledAt;
    if (elapsed < SAMPLE_MS) return this.#hasSome;
    const used = this.#clock.used();
    this.#hasSome = used - this.#used < elapsed * MAX_BUSY;
    this.#used = used;
    this.#sampledAt += elapsed;
    return this.#hasSome;
  }
}

const ownClock: ThreadClock = {
  now: () => performance.now(),
  used: () => {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1000;
  },
};
