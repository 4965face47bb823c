import type { Source } from "../drivers/driver.ts";
import { findDistrust } from "../plan/check-trust.ts";
import type { BaseSnapshot } from "./reuse-chunks.ts";

const SET_BACK = "the server was set back to an earlier state";

/** Says why row headers that the source shows prove nothing about what changed since the base; undefined when they do. */
export function distrustBase({ tracker }: Pick<Source, "tracker">, base: BaseSnapshot): string | undefined {
  if (!tracker) return "changes are not tracked";
  return tracker.isSetBack ? SET_BACK : findDistrust(base.reader.manifest.trust, tracker.token);
}
