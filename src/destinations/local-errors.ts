import { codeOf, isAbort, messageOf, OperationalError } from "../base/errors.ts";
import { type DestinationReason, destinationError } from "./destination.ts";

interface Meaning {
  readonly code: DestinationReason;
  readonly words: string;
  readonly hint?: string;
}

const ROOM = "Free space there, or choose another destination.";
const RIGHTS = "Allow the user who runs rowkeep to read and write there, or choose another folder.";

const MEANINGS: Readonly<Record<string, Meaning>> = {
  ENOENT: { code: "not-found", words: "it does not exist" },
  EEXIST: { code: "exists", words: "it exists already" },
  ENOSPC: { code: "full", words: "no space is left on the disk", hint: ROOM },
  EDQUOT: { code: "full", words: "the disk quota is used up", hint: ROOM },
  EFBIG: { code: "full", words: "the file system allows no file of this size", hint: ROOM },
  EACCES: { code: "denied", words: "access denied", hint: RIGHTS },
  EPERM: { code: "denied", words: "the system does not permit it", hint: RIGHTS },
  EROFS: {
    code: "denied",
    words: "the file system is read-only",
    hint: "Mount it writable, or choose another folder.",
  },
  ELOOP: {
    code: "denied",
    words: "a symbolic link stands in its place",
    hint: "Remove the symbolic link; rowkeep follows none below the folder of a destination.",
  },
  ENOTDIR: { code: "failed", words: "a part of its path is not a folder" },
  EISDIR: { code: "failed", words: "a folder stands in its place" },
  EMFILE: { code: "busy", words: "too many files are open" },
  ENFILE: { code: "busy", words: "too many files are open" },
  EBUSY: { code: "busy", words: "something else is using it" },
  EAGAIN: { code: "busy", words: "something else is using it" },
  ESTALE: { code: "unreachable", words: "the network folder is gone" },
  EIO: { code: "unreachable", words: "the disk or the network folder does not answer", hint: "Check this disk." },
  EHOSTDOWN: { code: "unreachable", words: "the network folder does not answer" },
  ETIMEDOUT: { code: "unreachable", words: "the network folder does not answer" },
};

/** Turns an error of the file system into that of a destination; aborts and our own errors stay what they are. */
export function localError(error: unknown, action: string): unknown {
  const system = codeOf(error);
  if (error instanceof OperationalError || isAbort(error) || system === undefined) return error;
  const meaning = MEANINGS[system];
  if (meaning === undefined)
    return destinationError(`cannot ${action}: ${messageOf(error)}`, "failed", { cause: error });
  return destinationError(`cannot ${action}: ${meaning.words}`, meaning.code, { hint: meaning.hint, cause: error });
}

/** The same where the destination's own folder was to be made. */
export function localOpenError(error: unknown, action: string): unknown {
  const code = codeOf(error);
  if (code === "EEXIST" || code === "ENOTDIR") {
    const hint = "Choose another folder, or move away what stands there.";
    const what = code === "EEXIST" ? "it is there and no folder" : "a part of its path is not a folder";
    return destinationError(`cannot ${action}: ${what}`, "failed", { hint, cause: error });
  }
  if (code !== "ENOENT") return localError(error, action);
  return destinationError(`cannot ${action}: no folder can be made there`, "not-found", {
    hint: "Check whether the drive is mounted, or choose another folder.",
    cause: error,
  });
}

/** The same where nothing was looked for: then a missing folder means that the drive went away. */
export function localFolderError(error: unknown, action: string): unknown {
  if (codeOf(error) !== "ENOENT") return localError(error, action);
  return destinationError(`cannot ${action}: its folder is gone`, "unreachable", {
    hint: "Check whether the drive is mounted.",
    cause: error,
  });
}
