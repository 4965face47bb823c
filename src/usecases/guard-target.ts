import { OperationalError } from "../base/errors.ts";
import type { ServerIdentity } from "../drivers/driver.ts";
import { isSameDatabase, isSamePlace } from "../drivers/same-database.ts";
import type { Manifest } from "../snapshot/manifest.ts";
import { ownEncodingOf } from "../snapshot/own-encoding.ts";

export interface GuardOptions {
  readonly manifest: Manifest;
  readonly target: ServerIdentity;
  readonly isNamed: boolean;
  readonly isDr?: boolean | undefined;
  readonly targetDb?: string | undefined;
}

/** Refuses a target that was not meant: a replica, another database than the snapshot's, another name than was said. */
export function guardTarget({ manifest, target, isNamed, isDr, targetDb }: GuardOptions): void {
  if (target.isReplica)
    throw wrongTarget(manifest, target, "it is a replica, which takes no writes", "Restore into its primary.");
  if (targetDb !== undefined && targetDb !== target.database) {
    throw wrongTarget(manifest, target, `--target-db says ${targetDb}`, "Check which database the address leads to.");
  }
  if (
    manifest.source.encoding !== target.encoding &&
    (manifest.source.encoding === "SQL_ASCII" || target.encoding !== "UTF8" || ownEncodingOf(manifest) !== undefined)
  ) {
    throw wrongTarget(
      manifest,
      target,
      `its encoding is ${target.encoding}, the snapshot's ${manifest.source.encoding}`,
      "Restore into a database of the same encoding.",
    );
  }
  if (isDr && isSamePlace(manifest.source, target)) {
    throw wrongTarget(
      manifest,
      target,
      "it is no second site, the snapshot was taken from it",
      "Correct dr.url in the job file; without --to the snapshot goes where it was taken from.",
    );
  }
  if (!isNamed && !isSameDatabase(manifest.source, target)) {
    throw wrongTarget(
      manifest,
      target,
      `the snapshot was taken from ${describe(manifest.source)}`,
      "If this is meant, name the target by --to <url>.",
    );
  }
}

function describe({ database, host, port }: ServerIdentity): string {
  return `${database} at ${host}:${port}`;
}

function wrongTarget(manifest: Manifest, target: ServerIdentity, reason: string, hint: string): OperationalError {
  return new OperationalError(`cannot restore ${manifest.id} into ${describe(target)}: ${reason}`, {
    kind: "refused",
    code: "wrong-target",
    hint,
  });
}
