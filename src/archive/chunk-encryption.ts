import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from "node:crypto";
import { archiveError } from "./archive-error.ts";

// The payload of an age file (https://c2sp.org/age) with the ciphers of node:crypto: the age library's own, in
// JavaScript, is ten times slower. Headers, and with them every operation on keys, are the library's: see age-keys.ts.

/** The beginning of one age file and the key that its header wraps. Made by a ChunkSealer, meant for one file. */
export interface FileSeal {
  readonly header: Uint8Array;
  /** 16 bytes. */
  readonly fileKey: Uint8Array;
}

const INTRODUCTION = "age-encryption.org/v1\n";
const NONCE_BYTES = 16;
const PIECE_BYTES = 64 * 1024;
const TAG_BYTES = 16;
const CIPHER = "chacha20-poly1305";

/** A recipient takes 120 bytes of a header, a post-quantum one 1.6 KB. */
const MAX_HEADER_BYTES = 64 * 1024;

/** Encrypts the bytes of one file at once, on this thread. `seal` may come from another thread. */
export function encryptChunk(bytes: Uint8Array, { header, fileKey }: FileSeal): Buffer<ArrayBuffer> {
  // Drawn here: even a seal that is used twice by mistake never encrypts two texts with the same key.
  const nonce = randomBytes(NONCE_BYTES);
  const key = payloadKeyOf(fileKey, nonce);
  const pieces = Math.max(1, Math.ceil(bytes.length / PIECE_BYTES));
  const start = header.length + NONCE_BYTES;
  const file = Buffer.allocUnsafeSlow(start + bytes.length + pieces * TAG_BYTES);
  file.set(header);
  file.set(nonce, header.length);
  for (let index = 0, at = start; index < pieces; index++) {
    const piece = bytes.subarray(index * PIECE_BYTES, (index + 1) * PIECE_BYTES);
    const cipher = createCipheriv(CIPHER, key, pieceNonce(index, index === pieces - 1), { authTagLength: TAG_BYTES });
    file.set(cipher.update(piece), at);
    cipher.final();
    file.set(cipher.getAuthTag(), at + piece.length);
    at += piece.length + TAG_BYTES;
  }
  return file;
}

/** Tells where the header of an age file ends: it is all before that offset. Fails with kind `archive`, `damaged`. */
export function headerLengthOf(file: Uint8Array): number {
  const bytes = Buffer.from(file.buffer, file.byteOffset, Math.min(file.length, MAX_HEADER_BYTES));
  if (bytes.indexOf(INTRODUCTION) !== 0) throw damaged("it is not a file in the age format");
  // The line with the authentication code is the first that begins so, and the last of the header.
  const lastLine = bytes.indexOf("\n--- ", INTRODUCTION.length - 1);
  const end = lastLine < 0 ? -1 : bytes.indexOf("\n", lastLine + 1);
  if (end < 0) throw damaged("its header does not end");
  return end + 1;
}

/**
 * Decrypts the payload of one file, everything behind its header, at once and on this thread.
 * Fails with kind `archive`, `damaged` for anything that was changed, cut off, added or moved.
 */
export function decryptPayload(payload: Uint8Array, fileKey: Uint8Array): Buffer<ArrayBuffer> {
  const body = payload.length - NONCE_BYTES;
  const pieces = Math.max(1, Math.ceil(body / (PIECE_BYTES + TAG_BYTES)));
  const size = body - pieces * TAG_BYTES;
  // Only an empty file has an empty piece.
  if (size < 0 || (pieces > 1 && size <= (pieces - 1) * PIECE_BYTES)) throw damaged("it is cut short");
  const key = payloadKeyOf(fileKey, payload.subarray(0, NONCE_BYTES));
  const bytes = Buffer.allocUnsafeSlow(size);
  for (let index = 0, at = 0; index < pieces; index++) {
    const start = NONCE_BYTES + index * (PIECE_BYTES + TAG_BYTES);
    const piece = payload.subarray(start, start + PIECE_BYTES + TAG_BYTES);
    const text = piece.subarray(0, piece.length - TAG_BYTES);
    const nonce = pieceNonce(index, index === pieces - 1);
    const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
    decipher.setAuthTag(piece.subarray(text.length));
    bytes.set(decipher.update(text), at);
    try {
      decipher.final();
    } catch (cause) {
      throw damaged(`its piece ${index + 1} was changed, moved or cut off`, cause);
    }
    at += text.length;
  }
  return bytes;
}

function payloadKeyOf(fileKey: Uint8Array, nonce: Uint8Array): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", fileKey, nonce, "payload", 32));
}

/** A counter of 88 bits and a byte that marks the last piece, so that pieces can be neither moved nor dropped. */
function pieceNonce(index: number, isLast: boolean): Uint8Array {
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32BE(index, 7);
  nonce[11] = isLast ? 1 : 0;
  return nonce;
}

function damaged(problem: string, cause?: unknown): Error {
  return archiveError(`cannot decrypt: ${problem}`, "damaged", {
    hint: "Use another destination that has this snapshot, or another snapshot.",
    cause,
  });
}
