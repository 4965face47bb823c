import type { Destination } from "../../src/destinations/destination.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import type { FaultDestination } from "./fault-destination.ts";

const signal = new AbortController().signal;

/**
 * Looks at a destination without its faults and tells everything that is not as it must be: what is listed passes verify,
 * unless its stored bytes are damaged, and then verify says so.
 */
export async function untruthsOf(real: Destination, faults: FaultDestination, prefix: string): Promise<string[]> {
  const { snapshots, damaged } = await openRepository(real, prefix).list({ signal });
  const untruths: string[] = [];
  for (const { id } of damaged) {
    if (!faults.damaged.has(`${prefix}/${id}/manifest.json`)) untruths.push(`the manifest of ${id} is damaged`);
  }
  for (const { id, references = [] } of snapshots) {
    const needed = [id, ...references];
    const harmed = [...faults.damaged].filter((key) => needed.some((one) => key.startsWith(`${prefix}/${one}/volume`)));
    const { ok, snapshots: verdicts } = await verifySnapshot({
      destinations: [real],
      prefix,
      id,
      signal,
      report: () => {},
    });
    const problems = verdicts.flatMap((verdict) =>
      verdict.problems.map(({ volume, problem }) => `${volume}: ${problem}`),
    );
    if (ok && harmed.length > 0) untruths.push(`verify finds ${id} good although ${harmed.join()} is damaged`);
    if (!ok && harmed.length === 0) untruths.push(`${id} is listed and does not verify: ${problems.join()}`);
    const short = problems.filter((problem) => / bytes, not |is missing/.test(problem));
    if (short.length > 0) untruths.push(`${id} is listed and not complete: ${short.join()}`);
  }
  return untruths;
}
