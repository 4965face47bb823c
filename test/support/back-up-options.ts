import { join } from "node:path";
import type { Destination } from "../../src/destinations/destination.ts";
import type { BackUpOptions } from "../../src/usecases/back-up.ts";
import { connectionOfUrl } from "./connection.ts";

export interface BackUpPlace {
  /** In which the spool lies. */
  readonly folder: string;
  readonly destinations: readonly Destination[];
}

/** All rows of a database, by two streams and with all that a user need not say. */
export function backUpOptions(
  url: string,
  { folder, destinations }: BackUpPlace,
  more: Partial<BackUpOptions> = {},
): BackUpOptions {
  return {
    connection: connectionOfUrl(url),
    choose: () => "rows",
    parallel: 2,
    stallTimeoutMs: 60_000,
    destinations,
    job: "shop",
    prefix: "shop/shop",
    compression: { codec: "zstd", level: 2 },
    files: [],
    spoolFolder: join(folder, "spool"),
    signal: new AbortController().signal,
    report: () => undefined,
    ...more,
  };
}
