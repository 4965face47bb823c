import { type ObjectInfo, type ThawTier, destinationError } from "./destination.ts";

/** What a HEAD request tells about storage. */
export interface S3Storage {
  readonly StorageClass?: string | undefined;
  readonly Restore?: string | undefined;
  readonly ArchiveStatus?: string | undefined;
}

type ThawState = Pick<ObjectInfo, "storageClass" | "thaw" | "thawedUntil">;

/** Hours that a thaw takes at most; https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html */
const WITHIN_HOURS: Readonly<Record<string, Readonly<Partial<Record<ThawTier, number>>>>> = {
  GLACIER: { expedited: 1, standard: 5, bulk: 12 },
  ARCHIVE_ACCESS: { expedited: 1, standard: 5, bulk: 12 },
  DEEP_ARCHIVE: { standard: 12, bulk: 48 },
  DEEP_ARCHIVE_ACCESS: { standard: 12, bulk: 48 },
};

const ARCHIVE_CLASSES = new Set(["GLACIER", "DEEP_ARCHIVE"]);
const S3_TIERS = { expedited: "Expedited", standard: "Standard", bulk: "Bulk" } as const;

/**
 * Reads class and thaw state from a HEAD's answer. Servers other than Amazon's may have classes of these names that can
 * be read at once, so `archived` by the class alone is to be tried: see `mustTry`.
 */
export function thawStateOf({ StorageClass, Restore, ArchiveStatus }: S3Storage): ThawState {
  const storageClass = StorageClass ?? "STANDARD";
  if (Restore !== undefined) {
    if (/ongoing-request="true"/.test(Restore)) return { storageClass, thaw: "thawing" };
    const until = new Date(/expiry-date="([^"]+)"/.exec(Restore)?.[1] ?? Number.NaN);
    return { storageClass, thaw: "thawed", ...(Number.isNaN(until.getTime()) ? {} : { thawedUntil: until }) };
  }
  const archived = ArchiveStatus !== undefined || ARCHIVE_CLASSES.has(storageClass);
  return archived ? { storageClass, thaw: "archived" } : { storageClass };
}

/** Whether only reading tells that an object is archived. */
export function mustTry({ Restore, ArchiveStatus, StorageClass }: S3Storage): boolean {
  return Restore === undefined && ArchiveStatus === undefined && ARCHIVE_CLASSES.has(StorageClass ?? "");
}

/** Makes the request for a thaw, and how long it takes. Fails with `unsupported` for what the class does not offer. */
export function thawRequestOf(
  { StorageClass = "", ArchiveStatus }: S3Storage,
  { days, tier = "standard", object }: { readonly days: number; readonly tier?: ThawTier; readonly object: string },
) {
  const place = ArchiveStatus ?? StorageClass;
  const withinHours = WITHIN_HOURS[place]?.[tier];
  if (WITHIN_HOURS[place] !== undefined && withinHours === undefined) {
    throw destinationError(`cannot thaw ${object}: ${place} has no ${tier} thaw`, "unsupported", {
      hint: "Choose the standard or bulk thaw.",
    });
  }
  const GlacierJobParameters = { Tier: S3_TIERS[tier] };
  // Intelligent tiering moves the object itself back, for good.
  const RestoreRequest = ArchiveStatus === undefined ? { Days: days, GlacierJobParameters } : { GlacierJobParameters };
  return { RestoreRequest, withinHours };
}
