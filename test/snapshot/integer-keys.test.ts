import fc from "fast-check";
import { expect, test } from "vitest";
import { bucketOfInteger, KEY_BITS, SPREADING_FACTOR } from "../../src/drivers/row-form.ts";
import { RowEncoder } from "../../src/snapshot/row-encoder.ts";

function bucketOf(key: bigint | number, buckets: number): number {
  const encoder = new RowEncoder({ columns: [], key: ["k"], separator: "|" }, ["k"]);
  const row = Buffer.from(`${key}\n`);
  encoder.read(row, 0, row.length - 1);
  return bucketOfInteger(encoder.integerKey(), buckets);
}

test("puts an integer key into the bucket that servers compute", () => {
  const key = fc.oneof(
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    fc.constantFrom(-(2n ** 63n), 2n ** 63n - 1n, -(2n ** 31n), 2n ** 31n, -(2n ** 32n), 2n ** 62n, -1n, 0n),
  );
  const [bits, factor] = [BigInt(KEY_BITS), BigInt(SPREADING_FACTOR)];
  fc.assert(
    fc.property(key, fc.integer({ min: 0, max: 30 }), (k, size) => {
      const asServersDo = ((((k ^ (k >> 31n)) & bits) * factor) >> 31n) & (BigInt(2 ** size) - 1n);
      expect(bucketOf(k, 2 ** size)).toBe(Number(asServersDo));
    }),
  );
});

test.each([1, 2, 10, 1000, 4096, 2 ** 20, 2 ** 31, 2 ** 32, 10 ** 12])(
  "spreads keys that are multiples of %i over all buckets",
  (step) => {
    const rows = new Map<number, number>();
    for (let key = 0; key < 2000; key += 1) {
      const bucket = bucketOf(BigInt(key) * BigInt(step), 32);
      rows.set(bucket, (rows.get(bucket) ?? 0) + 1);
    }

    expect(Math.max(...rows.values())).toBeLessThan(4 * (2000 / 32));
  },
);
