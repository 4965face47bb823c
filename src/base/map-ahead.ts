/** Maps items in their order, with up to `width` of them under way at once; what needs no waiting is given at once. The first failure ends it. */
export async function* mapAhead<T, R>(
  items: AsyncIterable<T> | Iterable<T>,
  width: number,
  map: (item: T) => R | Promise<R>,
): AsyncIterable<R> {
  const pending: Promise<R>[] = [];
  for await (const item of items) {
    const mapped = map(item);
    if (pending.length === 0 && !(mapped instanceof Promise)) {
      yield mapped;
      continue;
    }
    const result = Promise.resolve(mapped);
    // Nobody may come to wait for it, when the reader stops early.
    result.catch(() => undefined);
    pending.push(result);
    const first = pending.length > width ? pending.shift() : undefined;
    if (first) yield await first;
  }
  for (const last of pending) yield await last;
}
