import type { TrustToken } from "../../src/drivers/change-tracker.ts";
import type { Source } from "../../src/drivers/driver.ts";
import { openSource } from "../../src/drivers/open-driver.ts";
import { connectionOfUrl } from "./connection.ts";

/** A source of all tables that tells what changed, with one connection beside its leader. */
export function openTracked(url: string): Promise<Source> {
  return openSource(connectionOfUrl(url), {
    parallel: 1,
    choose: () => "rows",
    stallTimeoutMs: 60_000,
    track: true,
    signal: new AbortController().signal,
  });
}

/** What the server says now; fails when that cannot be trusted. */
export async function tokenOf(url: string): Promise<TrustToken> {
  await using source = await openTracked(url);
  const token = source.tracker?.token;
  if (typeof token !== "object") throw new Error(`no token: ${token}`);
  return token;
}
