/**
 * Does several things side by side under one signal. The first that fails stops the others by it, and its error is thrown
 * once all of them have ended: nothing goes on behind the back of who waits. An abort from outside throws its reason.
 */
export async function sideBySide<T extends readonly unknown[]>(
  outer: AbortSignal,
  start: (signal: AbortSignal) => { readonly [K in keyof T]: Promise<T[K]> },
): Promise<T> {
  const stopped = new AbortController();
  const works = start(AbortSignal.any([outer, stopped.signal])) as readonly Promise<unknown>[];
  const ended = await Promise.allSettled(
    works.map((work) =>
      work.catch((error: unknown) => {
        stopped.abort(error);
        throw error;
      }),
    ),
  );
  outer.throwIfAborted();
  if (stopped.signal.aborted) throw stopped.signal.reason;
  return ended.map((result) => (result as PromiseFulfilledResult<unknown>).value) as unknown as T;
}
