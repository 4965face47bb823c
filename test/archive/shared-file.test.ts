import { randomBytes } from "node:crypto";
import { mkdtempDisposable, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { SharedFile } from "../../src/archive/shared-file.ts";

const MIB = 1024 * 1024;

async function makeFile(size: number) {
  const folder = await mkdtempDisposable(join(tmpdir(), "rowkeep-shared-"));
  const path = join(folder.path, "file");
  const bytes = randomBytes(size);
  await writeFile(path, bytes);
  return { bytes, path, [Symbol.asyncDispose]: () => folder.remove() };
}

async function collect(parts: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(parts));
}

test.each([0, 1, MIB - 1, MIB, MIB + 1, 20 * MIB + 5])("readers far apart each get all %i bytes", async (size) => {
  await using made = await makeFile(size);
  const { bytes, path } = made;
  await using file = new SharedFile(path);
  const ahead = file.read()[Symbol.asyncIterator]();
  const first = await ahead.next();

  const whole = await collect(file.read());

  expect(whole.equals(bytes)).toBe(true);
  const rest = await collect({ [Symbol.asyncIterator]: () => ahead });
  expect(Buffer.concat([first.value ?? Buffer.of(), rest]).equals(bytes)).toBe(true);
});

test("readers that are near each other are given the same memory", async () => {
  await using made = await makeFile(3 * MIB);
  await using file = new SharedFile(made.path);

  const [one, other] = [file.read()[Symbol.asyncIterator](), file.read()[Symbol.asyncIterator]()];

  for (let block = 0; block < 3; block++) {
    const [mine, yours] = await Promise.all([one.next(), other.next()]);
    expect(mine.value?.length).toBe(MIB);
    expect(mine.value?.buffer).toBe(yours.value?.buffer);
  }
});

test("a reader far behind is given the memory that others still hold", async () => {
  await using made = await makeFile(20 * MIB);
  await using file = new SharedFile(made.path);
  const held = await Array.fromAsync(file.read());

  const late = await Array.fromAsync(file.read());

  expect(late.map(({ buffer }) => held.findIndex((block) => block.buffer === buffer))).toEqual(held.map((_, at) => at));
});

test("a file that is missing is an error of each reader", async () => {
  await using made = await makeFile(10);
  await rm(made.path);
  await using file = new SharedFile(made.path);

  const reads = await Promise.allSettled([collect(file.read()), collect(file.read())]);

  expect(reads.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
});

test("a reader that comes later reads a file that could not be opened before", async () => {
  await using made = await makeFile(10);
  const { bytes, path } = made;
  await rm(path);
  await using file = new SharedFile(path);
  const [early] = await Promise.allSettled([collect(file.read())]);
  await writeFile(path, bytes);

  const late = await collect(file.read());

  expect(early.status).toBe("rejected");
  expect(late.equals(bytes)).toBe(true);
});
