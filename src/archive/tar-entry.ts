import { Header } from "tar/header";
import { archiveError } from "./archive-error.ts";

/** Bytes of a tar header, and what every entry is padded to. */
export const TAR_BLOCK = 512;

/** Two blocks of zeros end a tar file. */
export const TAR_END = Buffer.alloc(2 * TAR_BLOCK);

const ENTRY_NAME = /^[0-9A-Za-z][0-9A-Za-z._-]*(?:\/[0-9A-Za-z][0-9A-Za-z._-]*)*$/;

/** Tells whether a name may stand in a volume: plain relative segments, below 100 bytes, so that no PAX header is needed. */
export function isEntryName(name: string): boolean {
  return name.length < 100 && ENTRY_NAME.test(name);
}

/** Bytes between the end of an entry's content and the next header. */
export function tarPaddingOf(size: number): number {
  return (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK;
}

/**
 * Renders the ustar header of a plain file (mode 0600, owner 0), the same bytes for the same arguments.
 * https://www.gnu.org/software/tar/manual/html_node/Standard.html
 */
export function renderTarHeader(name: string, size: number, modifiedAt: Date): Buffer {
  if (!isEntryName(name)) throw new RangeError(`not an entry name: ${JSON.stringify(name)}`);
  const block = Buffer.alloc(TAR_BLOCK);
  const mtime = new Date(Math.floor(modifiedAt.getTime() / 1000) * 1000);
  const header = new Header({
    path: name,
    mode: 0o600,
    uid: 0,
    gid: 0,
    size,
    type: "File",
    mtime,
    uname: "",
    gname: "",
  });
  if (header.encode(block)) throw new RangeError(`no plain tar header can hold ${name} with ${size} bytes`);
  return block;
}

export interface TarEntry {
  readonly name: string;
  readonly size: number;
  readonly modifiedAt: Date;
}

/**
 * Reads one header strictly: a plain file with a valid checksum and a plain name; `undefined` for a block of zeros.
 * Fails with kind `archive`, `bad-entry` for anything else (links, devices, PAX or GNU extensions, odd names).
 */
export function parseTarHeader(block: Buffer): TarEntry | undefined {
  if (block.length !== TAR_BLOCK) throw archiveError("cannot read a tar header: it is cut short", "truncated");
  if (block.equals(TAR_END.subarray(0, TAR_BLOCK))) return undefined;
  const header = new Header(block);
  const { path: name, size, mtime } = header;
  if (!header.cksumValid) throw archiveError("cannot read a tar header: its checksum is wrong", "bad-entry");
  if (header.typeKey !== "0" || header.linkpath) {
    throw archiveError("cannot read a tar header: the entry is not a plain file", "bad-entry");
  }
  if (name === undefined || !isEntryName(name)) {
    throw archiveError("cannot read a tar header: the entry's name is not a plain one", "bad-entry");
  }
  if (size === undefined || !Number.isSafeInteger(size) || size < 0 || mtime === undefined) {
    throw archiveError("cannot read a tar header: its size or time makes no sense", "bad-entry");
  }
  return { name, size, modifiedAt: mtime };
}
