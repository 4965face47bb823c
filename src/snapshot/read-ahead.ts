import type { Destination, GetOptions } from "../destinations/destination.ts";

/** Larger objects are read one by one: so many bytes, some dozens of times, are held at once. */
const SMALL_BYTES = 256 * 1024;

/**
 * Reads small objects in one go where the destination can, and gives a destination whose first `get` of each one needs no
 * reading any more. Any later one reads anew, so that what was misread is read a second time. Not to be disposed.
 */
export async function readAhead(
  destination: Destination,
  keys: readonly string[],
  { signal }: { readonly signal: AbortSignal },
): Promise<Destination> {
  if (!destination.getSmall || keys.length === 0) return destination;
  const found = await readSmall(destination, keys, { signal });
  const bytes = new Map<string, Uint8Array>();
  for (const [index, key] of keys.entries()) {
    const one = found[index];
    if (one) bytes.set(key, one);
  }
  return {
    name: destination.name,
    put: (key, open, options) => destination.put(key, open, options),
    get(key, options) {
      const known = options.range ? undefined : bytes.get(key);
      bytes.delete(key);
      return known ? once(known, options) : destination.get(key, options);
    },
    stat: (key, options) => destination.stat(key, options),
    list: (prefix, options) => destination.list(prefix, options),
    remove: (key, options) => destination.remove(key, options),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

/** Reads small objects in one go, where the destination can; undefined for what cannot be had. */
export async function readSmall(
  destination: Destination,
  keys: readonly string[],
  { signal }: { readonly signal: AbortSignal },
): Promise<readonly (Uint8Array | undefined)[]> {
  return (await destination.getSmall?.(keys, { maxBytes: SMALL_BYTES, signal })) ?? [];
}

async function* once(bytes: Uint8Array, { signal }: GetOptions): AsyncIterable<Uint8Array> {
  signal.throwIfAborted();
  yield bytes;
}
