import type { FileInfo, RawListParser } from "basic-ftp";
import { messageOf } from "../base/errors.ts";
import { destinationError } from "./destination.ts";
import type { FtpSession } from "./ftp-connections.ts";
import { replyCodeOf, saysMissing } from "./ftp-errors.ts";

/** Lines that are parsed at a time: the parsed form is ten times larger than the text. */
const LINES_AT_ONCE = 500;
const MAKE_ATTEMPTS = 4;

export interface FtpEntry {
  readonly kind: "file" | "folder" | "other";
  readonly size: number;
  /** Undefined where the server tells it only on demand (MDTM), or not at all. */
  readonly modifiedAt: Date | undefined;
}

/** Looks at one name; undefined when there is nothing. A symbolic link is `other`, where the server tells. */
export async function statEntry({ client, parseList, hasFacts }: FtpSession, path: string) {
  if (!hasFacts) return await statWithoutFacts({ client }, path);
  try {
    const { message } = await client.send(`MLST ${path}`);
    const facts = message.split("\n")[1]?.trim().split(" ")[0] ?? "";
    // Without the path, which may hold what is not allowed in a listing.
    const info = parseList(`${facts} x`)[0];
    return info ? entryOf(info) : ({ kind: "folder", size: 0, modifiedAt: undefined } satisfies FtpEntry);
  } catch (error) {
    // Some servers use the same words for what is missing and what is forbidden, but not here.
    if (saysMissing(error)) return await statWithoutFacts({ client }, path);
    throw error;
  }
}

async function statWithoutFacts({ client }: Pick<FtpSession, "client">, path: string): Promise<FtpEntry | undefined> {
  try {
    const size = await client.size(path);
    return { kind: "file", size, modifiedAt: await readTime({ client }, path) };
  } catch (error) {
    if (saysMissing(error)) return undefined;
    throw error;
  }
}

/** Asks for the time of a file; undefined when the server does not tell it. */
export async function readTime({ client }: Pick<FtpSession, "client">, path: string): Promise<Date | undefined> {
  try {
    const time = await client.lastMod(path);
    return Number.isNaN(time.getTime()) ? undefined : time;
  } catch (error) {
    if (replyCodeOf(error) === undefined) throw error;
    return undefined;
  }
}

/** Tells what stands where a folder should be, also on servers that tell no facts. */
export async function lookForFolder(session: FtpSession, path: string): Promise<"folder" | "nothing" | "other"> {
  if (!session.hasFacts) {
    try {
      await session.client.cd(path);
      return "folder";
    } catch (error) {
      if (replyCodeOf(error) === undefined) throw error;
    }
  }
  const entry = await statEntry(session, path);
  return entry === undefined ? "nothing" : entry.kind === "folder" ? "folder" : "other";
}

async function isFolder(session: FtpSession, path: string): Promise<boolean> {
  return (await lookForFolder(session, path)) === "folder";
}

/** Makes a folder for its owner alone, where the server lets clients decide; gives false when there is one already. */
export async function makeFolder(session: FtpSession, path: string): Promise<boolean> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await session.client.send(`MKD ${path}`);
      break;
    } catch (error) {
      if (replyCodeOf(error) === undefined) throw error;
      // There is no code for "exists already". One that was there may be gone by now: a lock that its owner gave back.
      const found = await lookForFolder(session, path);
      if (found === "folder") return false;
      if (found === "other" || attempt === MAKE_ATTEMPTS) throw error;
    }
  }
  await session.client.sendIgnoringError(`SITE CHMOD 700 ${path}`);
  return true;
}

/** Removes a file; gives false when there is none. */
export async function removeFile(session: FtpSession, path: string): Promise<boolean> {
  try {
    await session.client.remove(path);
    return true;
  } catch (error) {
    if (replyCodeOf(error) === undefined || (await statEntry(session, path)) !== undefined) throw error;
    return false;
  }
}

/** Reads the text of a folder's listing; undefined when there is no such folder. */
export async function readListing(session: FtpSession, path: string): Promise<string | undefined> {
  const { client, hasFacts } = session;
  let text = "";
  client.parseList = (raw) => {
    text = raw;
    return [];
  };
  try {
    // A LIST takes a path for a pattern, and a missing folder for an empty one.
    if (!hasFacts) await client.cd(path);
    await client.list(hasFacts ? path : "");
    return text;
  } catch (error) {
    if (saysMissing(error) && !(await isFolder(session, path))) return undefined;
    throw error;
  }
}

/** Gives what a listing tells, piece by piece. Fails with `failed` when its form is not known. */
export function* parseListing(
  text: string,
  parseList: RawListParser,
  folder: string,
): Iterable<FtpEntry & { readonly name: string }> {
  for (let start = 0; start < text.length; ) {
    let end = start;
    for (let lines = 0; lines < LINES_AT_ONCE && end < text.length; lines++) {
      const newline = text.indexOf("\n", end);
      end = newline === -1 ? text.length : newline + 1;
    }
    for (const info of parsePiece(text.slice(start, end), parseList, folder)) {
      yield { name: info.name, ...entryOf(info) };
    }
    start = end;
  }
}

function parsePiece(text: string, parseList: RawListParser, folder: string): readonly FileInfo[] {
  try {
    return parseList(text);
  } catch (error) {
    throw destinationError(`cannot list ${folder}: the form of the server's listing is not known`, "failed", {
      hint: "Let the server offer MLSD.",
      cause: messageOf(error),
    });
  }
}

function entryOf(info: FileInfo): FtpEntry {
  const kind = info.isFile ? "file" : info.isDirectory ? "folder" : "other";
  return { kind, size: info.size, modifiedAt: info.modifiedAt };
}
