/** Runs work as soon as fewer than so many others are under way, in the order in which it came. */
export type Limit = <T>(work: () => Promise<T>) => Promise<T>;

export function makeLimit(most: number): Limit {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (running < most) running += 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      // Its place goes to the next one at once, so nobody can come in between.
      const next = waiting.shift();
      if (next) next();
      else running -= 1;
    }
  };
}
