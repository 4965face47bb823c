import fc from "fast-check";
import { expect, test } from "vitest";
import { bucketOfInteger, LOWEST_BITS, SPREADING_FACTOR } from "../../src/drivers/row-form.ts";

test("puts an integer key into the bucket that servers compute", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.integer({ min: 0, max: 30 }), (key, bits) => {
      const asServersDo = (((key & BigInt(LOWEST_BITS)) * BigInt(SPREADING_FACTOR)) >> 31n) & (BigInt(2 ** bits) - 1n);
      expect(bucketOfInteger(Number(BigInt.asIntN(32, key)), 2 ** bits)).toBe(Number(asServersDo));
    }),
  );
});

test.each([1, 2, 10, 1000, 4096, 2 ** 20])("spreads keys that are multiples of %i over all buckets", (step) => {
  const rows = new Map<number, number>();
  for (let key = 0; key < 2000 * step; key += step) {
    const bucket = bucketOfInteger(key | 0, 32);
    rows.set(bucket, (rows.get(bucket) ?? 0) + 1);
  }

  expect(Math.max(...rows.values())).toBeLessThan(4 * (2000 / 32));
});
