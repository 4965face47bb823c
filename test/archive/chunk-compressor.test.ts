import { createHash, randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { decompressChunk } from "../../src/archive/chunk-codec.ts";
import { ChunkCompressor } from "../../src/archive/chunk-compressor.ts";

/** Half noise, half text: neither a bomb nor incompressible. */
function sample(bytes: number): Buffer {
  const half = Math.floor(bytes / 2);
  return Buffer.concat([randomBytes(half), Buffer.alloc(bytes - half, "some text ")]);
}

const codecs = ["zstd", "gzip", "none"] as const;
const cases = codecs.flatMap((codec) => [
  { codec, where: "on threads", hasSome: false },
  { codec, where: "where it is called", hasSome: true },
]);

describe.each(cases)("the chunk compressor with $codec $where", ({ codec, hasSome }) => {
  test("gives every chunk back, however many are asked for at once", async () => {
    await using compressor = new ChunkCompressor({ codec, level: 2 }, undefined, { hasSome });
    const chunks = Array.from({ length: 12 }, (_, index) => sample(1000 * 3 ** (index % 7) + index));

    const restored = await Promise.all(
      chunks.map((raw) =>
        compressor.compress(raw, async ({ stored, sha256 }) => {
          expect(sha256).toBe(createHash("sha256").update(stored).digest("hex"));
          return Buffer.from(decompressChunk(Buffer.from(stored), raw.length, codec));
        }),
      ),
    );

    expect(restored.every((bytes, index) => bytes.equals(chunks[index] as Buffer))).toBe(true);
  });

  test("takes bytes in shared memory and bytes that do not compress", async () => {
    await using compressor = new ChunkCompressor({ codec, level: 2 }, undefined, { hasSome });
    const raw = Buffer.from(new SharedArrayBuffer(300_000));
    randomBytes(300_000).copy(raw);

    const restored = await compressor.compress(raw, async ({ stored }) =>
      Buffer.from(decompressChunk(Buffer.from(stored), raw.length, codec)),
    );

    expect(restored.equals(raw)).toBe(true);
  });
});
