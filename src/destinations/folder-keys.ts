import { assertKey, destinationError } from "./destination.ts";

/** How the name of a file ends that is not an object yet. */
export const UNFINISHED = ".in-progress";

/** Checks a key of a destination that is a folder of files. Fails with `invalid-key`, for a name of our own too. */
export function assertFolderKey(key: string): void {
  assertKey(key);
  if (key.split("/").some((segment) => segment.endsWith(UNFINISHED))) {
    throw destinationError(`cannot use the key ${JSON.stringify(key)}: the name is reserved`, "invalid-key");
  }
}

/** Tells whether the name of a file or folder can be a part of a key; others are not ours. */
export function isKeyName(name: string): boolean {
  return name !== "." && name !== ".." && /^[0-9A-Za-z._-]+$/.test(name);
}

/** Gives `a` and `a/b` for the key `a/b/c`. */
export function foldersOf(key: string): readonly string[] {
  const parts = key.split("/");
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("/"));
}

export function nameTaken(object: string): Error {
  return destinationError(`cannot write ${object}: it exists already`, "exists", {
    hint: "Check whether another run writes the same snapshot.",
  });
}

export function notAFolder(folder: string): Error {
  return destinationError(`cannot use the folder ${folder}: something else stands in its place`, "denied", {
    hint: "Remove it; rowkeep follows no symbolic link below the folder of a destination.",
  });
}

/** For who only reads: whether the folder was never made or its drive went away, nobody knows here. */
export function noFolder(destination: string): Error {
  return destinationError(`cannot open ${destination}: its folder does not exist`, "not-found", {
    hint: "The first run of a job makes it. If there was one, check the path, and whether its drive is mounted.",
  });
}
