import { hkdfSync } from "node:crypto";
import { Decrypter, Encrypter } from "age-encryption";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  encryptTo,
  generateKeyPair,
  isRecipient,
  makeSeal,
  openerOf,
  parseIdentities,
} from "../../src/archive/age-keys.ts";
import { decryptPayload, encryptChunk, headerLengthOf } from "../../src/archive/chunk-encryption.ts";

const PIECE = 64 * 1024;
/** Around every border that the format has. */
const SIZES = [0, 1, 15, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 17, 300_000];

const sample = (size: number) => Buffer.from(Uint8Array.from({ length: size }, (_, at) => (at * 31 + (at >> 8)) % 251));
const pair = await generateKeyPair();
const open = openerOf({ identities: [pair.identity] });

async function codeOf(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(
    () => "opened",
    (error: { readonly kind?: string; readonly code?: string }) => `${error.kind} ${error.code}`,
  );
}

describe("an encrypted chunk", () => {
  test.each(SIZES)("of %d bytes is read by the age library's own reader", async (size) => {
    const bytes = sample(size);

    const file = encryptChunk(bytes, await makeSeal(pair.recipient));

    const decrypter = new Decrypter();
    decrypter.addIdentity(pair.identity);
    expect(Buffer.from(await decrypter.decrypt(file)).equals(bytes)).toBe(true);
    expect((await open(file)).equals(bytes)).toBe(true);
  });

  test.each(SIZES)("of %d bytes that the age library wrote is read", async (size) => {
    const bytes = sample(size);
    const encrypter = new Encrypter();
    encrypter.addRecipient(pair.recipient);

    const file = await encrypter.encrypt(bytes);

    expect((await open(file)).equals(bytes)).toBe(true);
  });

  test("has a key of its own, also when a seal is used twice by mistake", async () => {
    const seal = await makeSeal(pair.recipient);
    const other = await makeSeal(pair.recipient);
    const keys = [encryptChunk(sample(9), seal), encryptChunk(sample(9), seal)].map((file) => {
      const nonce = file.subarray(headerLengthOf(file), headerLengthOf(file) + 16);
      return Buffer.from(hkdfSync("sha256", seal.fileKey, nonce, "payload", 32)).toString("hex");
    });

    expect(new Set(keys).size).toBe(2);
    expect(Buffer.from(other.fileKey)).not.toEqual(Buffer.from(seal.fileKey));
    expect(Buffer.from(other.header)).not.toEqual(Buffer.from(seal.header));
  });

  test("is damaged, and never half right, when any of its bytes is flipped", async () => {
    const bytes = sample(PIECE + 300);
    const file = encryptChunk(bytes, await makeSeal(pair.recipient));
    const header = headerLengthOf(file);
    const places = [...Array(header).keys(), header, header + 15, header + 16, header + 16 + PIECE, file.length - 1];

    for (const place of places) {
      const flipped = Buffer.from(file);
      flipped[place] = (flipped[place] ?? 0) ^ 1;

      // Within the part of the header that the key opens, a flip looks like another key: see the envelope.
      expect(["archive damaged", "archive wrong-key"], `byte ${place}`).toContain(await codeOf(open(flipped)));
      if (place >= header) expect(await codeOf(open(flipped)), `byte ${place}`).toBe("archive damaged");
    }
  });

  test("is damaged when it is cut anywhere, made longer, or its pieces change places", async () => {
    const bytes = sample(3 * PIECE);
    const file = encryptChunk(bytes, await makeSeal(pair.recipient));
    const start = headerLengthOf(file) + 16;
    const piece = PIECE + 16;
    const [head, first, second, third] = [
      file.subarray(0, start),
      file.subarray(start, start + piece),
      file.subarray(start + piece, start + 2 * piece),
      file.subarray(start + 2 * piece),
    ] as [Buffer, Buffer, Buffer, Buffer];
    const bad = [
      ...[0, 10, start - 17, start - 1, start, start + 15, start + 16, start + piece, start + 2 * piece].map((size) =>
        file.subarray(0, size),
      ),
      file.subarray(0, -1),
      Buffer.concat([file, Buffer.from([0])]),
      Buffer.concat([file, file.subarray(-16)]),
      Buffer.concat([file, file]),
      Buffer.concat([head, second, first, third]),
      Buffer.concat([head, first, third]),
      Buffer.concat([head, first, second, second, third]),
    ];

    for (const [index, one] of bad.entries()) {
      expect(await codeOf(open(one)), `number ${index}`).toBe("archive damaged");
    }
  });

  test("of any bytes whatever is refused with an error of its own", async () => {
    const good = encryptChunk(sample(500), await makeSeal(pair.recipient));
    const header = headerLengthOf(good);

    await fc.assert(
      fc.asyncProperty(
        fc.nat(header + 40),
        fc.nat(60),
        fc.oneof(
          fc.uint8Array({ maxLength: 200 }),
          fc.constant(Buffer.from("-> X25519 a\n")),
          fc.constant(Buffer.alloc(70_000, 97)),
        ),
        async (at, dropped, added) => {
          const bad = Buffer.concat([good.subarray(0, at), added, good.subarray(at + dropped)]);
          fc.pre(!bad.equals(good));
          expect(["archive damaged", "archive wrong-key"]).toContain(await codeOf(open(bad)));
        },
      ),
      { numRuns: 200 },
    );
  });

  test("cannot have the payload of another chunk", async () => {
    const [left, right] = [
      encryptChunk(sample(100), await makeSeal(pair.recipient)),
      encryptChunk(sample(100), await makeSeal(pair.recipient)),
    ];
    const spliced = Buffer.concat([left.subarray(0, headerLengthOf(left)), right.subarray(headerLengthOf(right))]);

    expect(await codeOf(open(spliced))).toBe("archive damaged");
  });

  test("refuses an empty piece behind full ones, which only a forger writes", async () => {
    const { header, fileKey } = await makeSeal(pair.recipient);
    const file = encryptChunk(sample(PIECE), { header, fileKey });

    expect(() => decryptPayload(Buffer.concat([file.subarray(header.length), Buffer.alloc(16)]), fileKey)).toThrow(
      "cut short",
    );
  });
});

describe("a key", () => {
  test("of somebody else is the wrong key", async () => {
    const other = await generateKeyPair();
    const file = encryptChunk(sample(10), await makeSeal(pair.recipient));

    expect(await codeOf(openerOf({ identities: [other.identity] })(file))).toBe("archive wrong-key");
  });

  test("opens what is encrypted to several", async () => {
    const other = await generateKeyPair();
    const file = await encryptTo({ recipients: [pair.recipient, other.recipient] }, "both");

    const opened = await Promise.all([pair, other].map(({ identity }) => openerOf({ identities: [identity] })(file)));

    expect(opened.map(String)).toEqual(["both", "both"]);
  });

  test("may be a passphrase, and the wrong one is the wrong key", async () => {
    const file = await encryptTo({ passphrase: "correct horse battery" }, "secret");

    expect(String(await openerOf({ identities: [], passphrases: ["correct horse battery"] })(file))).toBe("secret");
    expect(await codeOf(openerOf({ identities: [], passphrases: ["wrong horse battery"] })(file))).toBe(
      "archive wrong-key",
    );
  });

  test("is not derived at a price that a forged file names", async () => {
    const file = await encryptTo({ passphrase: "correct horse battery" }, "secret");
    const costly = Buffer.from(file.toString("latin1").replace(/^(-> scrypt \S+) 17$/m, "$1 20"), "latin1");
    const startedAt = performance.now();

    expect(await codeOf(openerOf({ identities: [], passphrases: ["correct horse battery"] })(costly))).toBe(
      "archive damaged",
    );
    expect(performance.now() - startedAt).toBeLessThan(1000);
  });

  test("is told from other texts", async () => {
    expect(await isRecipient(pair.recipient)).toBe(true);
    expect(await isRecipient(`${pair.recipient.slice(0, -1)}b`)).toBe(false);
    expect(await isRecipient(pair.identity)).toBe(false);
    expect(await isRecipient("ssh-ed25519 AAAA")).toBe(false);
  });

  test("file may have comments, several keys and Windows line ends", async () => {
    const other = await generateKeyPair();

    const parsed = await parseIdentities(`# created: today\r\n\r\n${pair.identity}\r\n ${other.identity}\n`);

    expect(parsed).toEqual({ identities: [pair.identity, other.identity] });
  });

  test.each([
    ["nothing", "# only a comment\n", "holds no secret key"],
    ["a public key", `${pair.recipient}\n`, "is a public key"],
    // B is no digit of such a key, so that this is never the key itself.
    ["a mistyped key", `${pair.identity.slice(0, -1)}B`, "is not a secret key"],
  ])("file with %s is refused without being quoted", async (_, text, problem) => {
    const parsed = await parseIdentities(text);

    expect(parsed).toContain(problem);
    expect(parsed).not.toContain(pair.identity.slice(20, 40));
  });
});
