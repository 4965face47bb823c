import fc from "fast-check";
import { expect, test } from "vitest";
import { RowDigest } from "../../src/usecases/row-digest.ts";

function digestOf(pieces: readonly Buffer[], format: "text" | "binary" = "text"): RowDigest {
  const digest = new RowDigest();
  const sink = digest.open(format);
  for (const piece of pieces) sink.push(piece);
  sink.end();
  return digest;
}

function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [0, ...places.map((place) => place % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return at.slice(1).map((end, index) => bytes.subarray(at[index], end));
}

/** COPY binary as PostgreSQL's documentation describes it. */
function binaryOf(rows: readonly (readonly (Buffer | null)[])[], extension = Buffer.alloc(0)): Buffer {
  const int16 = (value: number) => {
    const bytes = Buffer.alloc(2);
    bytes.writeInt16BE(value);
    return bytes;
  };
  const int32 = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(value);
    return bytes;
  };
  const field = (value: Buffer | null) => (value ? [int32(value.length), value] : [int32(-1)]);
  return Buffer.concat([
    Buffer.from("PGCOPY\n\xff\r\n\0", "latin1"),
    int32(0),
    int32(extension.length),
    extension,
    ...rows.flatMap((row) => [int16(row.length), ...row.flatMap(field)]),
    int16(-1),
  ]);
}

const line = fc.string({ maxLength: 12 }).map((text) => text.replaceAll("\n", "\\n"));
const places = fc.array(fc.nat(), { maxLength: 5 });

test("is the same for the same rows in any order and cut anywhere", () => {
  fc.assert(
    fc.property(fc.array(line), places, fc.nat(), (rows, cuts, turn) => {
      const other = [...rows.slice(turn % (rows.length + 1)), ...rows.slice(0, turn % (rows.length + 1))].reverse();
      const bytes = (lines: readonly string[]) => Buffer.from(lines.map((row) => `${row}\n`).join(""));

      expect(digestOf(cut(bytes(rows), cuts)).equals(digestOf([bytes(other)]))).toBe(true);
    }),
  );
});

test("tells apart what differs in one value, one more row, or a row that moved to another number", () => {
  const digest = (text: string) => digestOf([Buffer.from(text)]);
  const base = digest("a\t1\nb\t2\n");

  expect(base.equals(digest("a\t2\nb\t1\n"))).toBe(false);
  expect(base.equals(digest("a\t1\nb\t2\nb\t2\n"))).toBe(false);
  expect(digest("a\na\nb\n").equals(digest("a\nb\nb\n"))).toBe(false);
  expect(digest("").equals(digest("\n"))).toBe(false);
  expect(digest("ab\n").equals(digest("a\nb\n"))).toBe(false);
});

test("reads binary rows cut anywhere, whatever stands in the header's extension", () => {
  const value = fc.option(fc.uint8Array({ maxLength: 9 }).map((bytes) => Buffer.from(bytes)));
  const rows = fc.array(fc.array(value, { maxLength: 3 }), { maxLength: 6 });
  fc.assert(
    fc.property(rows, places, fc.uint8Array({ maxLength: 7 }), (content, cuts, extension) => {
      const split = digestOf(cut(binaryOf(content, Buffer.from(extension)), cuts), "binary");

      expect(split.rows).toBe(content.length);
      expect(split.equals(digestOf([binaryOf(content.toReversed())], "binary"))).toBe(true);
    }),
  );
});

test("tells a binary NULL from an empty value, and fields that were joined", () => {
  const digest = (rows: readonly (readonly (Buffer | null)[])[]) => digestOf([binaryOf(rows)], "binary");

  expect(digest([[null]]).equals(digest([[Buffer.alloc(0)]]))).toBe(false);
  expect(digest([[Buffer.from("ab")]]).equals(digest([[Buffer.from("a"), Buffer.from("b")]]))).toBe(false);
});

test("refuses a stream that ends inside a row", () => {
  const bytes = binaryOf([[Buffer.from("value")]]);

  expect(() => digestOf([Buffer.from("a\nb")])).toThrow(RangeError);
  expect(() => digestOf([bytes.subarray(0, bytes.length - 2)], "binary")).toThrow(RangeError);
});
