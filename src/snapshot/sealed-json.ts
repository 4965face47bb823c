import { hash } from "node:crypto";

// The digest is the last field, so that the file stays plain JSON and needs no second file that could go missing.
const BEFORE_DIGEST = ',"sha256":"';
const AFTER_DIGEST = '"}\n';
const DIGEST_LENGTH = 64;
const SEAL_LENGTH = BEFORE_DIGEST.length + DIGEST_LENGTH + AFTER_DIGEST.length;

/** Renders an object with fields as one line of JSON whose last field is the SHA-256 of all bytes before that field. */
export function sealJson(value: object): Buffer {
  const body = Buffer.from(JSON.stringify(value).slice(0, -1), "utf8");
  return Buffer.concat([body, Buffer.from(BEFORE_DIGEST + hash("sha256", body) + AFTER_DIGEST)]);
}

/** Tells whether the bytes are as they were sealed. */
export function isSealIntact(bytes: Uint8Array): boolean {
  if (bytes.length <= SEAL_LENGTH) return false;
  const body = bytes.subarray(0, bytes.length - SEAL_LENGTH);
  return Buffer.from(BEFORE_DIGEST + hash("sha256", body) + AFTER_DIGEST).equals(bytes.subarray(body.length));
}
