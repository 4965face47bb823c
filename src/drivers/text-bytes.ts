import { isUtf8 } from "node:buffer";

const FIRST_BYTE_MARK = 0xdc00;

/**
 * Gives the text of these bytes: what they say as UTF-8, and else ASCII with each other byte as a lone surrogate (U+DC80 to U+DCFF),
 * which no UTF-8 gives. So different bytes stay different, and `bytesOfText` gives them back.
 */
export function textOfBytes(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString("utf8");
  return Array.from(bytes, (byte) => String.fromCharCode(byte < 0x80 ? byte : FIRST_BYTE_MARK + byte)).join("");
}

/** The bytes that `textOfBytes` was given. */
export function bytesOfText(text: string): Buffer {
  if (text.isWellFormed()) return Buffer.from(text);
  return Buffer.from(text, "latin1");
}
