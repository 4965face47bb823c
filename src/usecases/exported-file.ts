import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { MANIFEST_NAMES } from "../snapshot/manifest-text.ts";
import type { SnapshotChoice } from "../snapshot/find-snapshot.ts";
import { EXPORT_PREFIX } from "./export-database.ts";

/** Means the snapshot of an exported file, also one that an import took of what it replaced, which must be named. */
export async function chooseExported(file: Destination, signal: AbortSignal): Promise<SnapshotChoice> {
  for await (const { key } of file.list(`${EXPORT_PREFIX}/`, { signal })) {
    const [id = "", name = "", ...deeper] = key.slice(EXPORT_PREFIX.length + 1).split("/");
    if (MANIFEST_NAMES.includes(name) && deeper.length === 0) return { name: id };
  }
  return { name: "latest" };
}

/** Names what is damaged as it lies in the file; readers know it by a key with a folder that is not there. */
export function namedInFile(error: unknown, file: Destination, path: string): unknown {
  const place = `${file.name}/${EXPORT_PREFIX}/`;
  if (!(error instanceof OperationalError) || error.kind !== "archive" || !error.message.includes(place)) return error;
  return new OperationalError(
    error.message.replace(place, () => `${path}: `),
    {
      kind: error.kind,
      code: error.code,
      hint: "Copy the file again from where it came, or use another one.",
      cause: error.cause,
    },
  );
}
