import { OperationalError } from "../../base/errors.ts";
import { openReadCopiesStore } from "../../job/read-copies-store.ts";
import { takeReadLease } from "../../job/read-lease.ts";
import { type VerifiedSnapshot, type VerifyResult, verifySnapshot } from "../../usecases/verify-snapshot.ts";
import type { CommandAction } from "../command.ts";
import type { CliContext } from "../context.ts";
import { formatBytes, formatPlural } from "../format.ts";
import { homeOf } from "../job-context.ts";
import { chooseDatabase, openJob } from "../open-job.ts";
import { readShare, readText } from "../option-values.ts";
import type { Output } from "../output.ts";
import { openProgress } from "../progress/progress-display.ts";
import { printVerifySummary, type VerifyOutcome } from "../render/summary.ts";
import { plain } from "../text-table.ts";

const MOST_PROBLEMS = 20;

/**
 * Re-reads snapshots and checks every hash; the exit code is 7 when one is damaged or the key is wrong, 6 when no destination
 * answered, 3 when one of several did not, or when something good could not be read: without its key, or in an archive.
 */
export const verify: CommandAction = async (context, { args, options }) => {
  if (options.drill === true) {
    const { drill } = await import("./drill.ts");
    return drill(context, { args, options });
  }
  for (const flag of ["drillUrl", "parallel"] as const) {
    if (options[flag] !== undefined) throw withoutDrill(flag === "drillUrl" ? "--drill-url" : "--parallel");
  }
  if (options.all && args[1] !== undefined) throw bothChosen();
  const sample = readShare(options.sample, "--sample");
  const id = options.all ? undefined : String(args[1] ?? "latest");
  await using job = await openJob(context, {
    job: String(args[0]),
    from: readText(options.from),
    identity: readText(options.identity),
  });
  const snapshots: VerifiedSnapshot[] = [];
  const outcomes: VerifyOutcome[] = [];
  const unread: VerifyResult["unread"][number][] = job.unopened.map(({ name, error }) => ({
    destination: name,
    error,
  }));
  {
    using progress = await openProgress(context);
    const wanted = readText(options.database);
    const home = homeOf(context);
    const areAll = wanted === undefined && (id === undefined || id === "latest");
    const chosen = { database: wanted, snapshots: id === undefined ? [] : [id] };
    for (const { name: database, prefix } of areAll ? job.databases : [await chooseDatabase(context, job, chosen)]) {
      const { destinations, unopened, keys } = job;
      const { signal, now } = context;
      const result = await verifySnapshot({
        destinations,
        unopened,
        prefix,
        keys,
        id,
        sample,
        now,
        announce: (ids) => takeReadLease(home, { prefix, ids, purpose: "verify" }),
        signal,
        report: progress.report,
      });
      snapshots.push(...result.snapshots);
      await forgetDamaged(context, prefix, result.snapshots);
      unread.push(...result.unread);
      outcomes.push({ database, ...result });
    }
  }
  const isGood = snapshots.every(({ ok }) => ok);
  const isPartial = snapshots.some(({ archived, locked }) => archived !== undefined || locked === true);
  const missed = unread.map(({ destination, error }) => ({ destination, error: error.message }));
  context.output.result({ ok: isGood && !isPartial && unread.length === 0, snapshots, unread: missed }, () => {
    print(context.output, snapshots);
    printVerifySummary(context.output, outcomes);
  });
  // Where nothing could be read, verifySnapshot fails.
  return isGood ? (unread.length > 0 || isPartial || job.hasWarnings ? 3 : 0) : 7;
};

/** What sync read once may be what is damaged now. */
async function forgetDamaged(
  context: CliContext,
  prefix: string,
  snapshots: readonly VerifiedSnapshot[],
): Promise<void> {
  const damaged = snapshots.filter(({ ok }) => !ok);
  if (damaged.length === 0) return;
  using memory = await openReadCopiesStore(homeOf(context), context.now());
  for (const { id, destination } of damaged) memory?.forget({ destination, prefix, id });
}

function print(output: Output, snapshots: readonly VerifiedSnapshot[]): void {
  if (snapshots.length === 0) output.line("no snapshots yet");
  for (const { id, destination, ok, code, chunks, bytes, sample, locked, archived, problems } of snapshots) {
    const good = archived
      ? output.paint.yellow("archived, not verified:")
      : locked
        ? output.paint.yellow("only hashes verified:")
        : output.paint.green("good:");
    const verdict = ok ? good : output.paint.red(code === "wrong-key" ? "wrong key:" : "damaged:");
    const part = locked
      ? ", closed: its chunks were not read"
      : sample < 1
        ? `, a sample of ${Math.round(sample * 1000) / 10} %`
        : "";
    const unread = archived
      ? ` read; ${formatPlural(archived.volumes.length, "volume")}, ${formatBytes(archived.bytes)} in the archive`
      : "";
    output.line(
      `${verdict} ${plain(id)} at ${plain(destination)}: ${formatPlural(chunks, "chunk")}, ${formatBytes(bytes)}${part}${unread}`,
    );
    for (const { volume, chunk, problem } of problems.slice(0, MOST_PROBLEMS)) {
      output.line(
        `  ${[volume, chunk]
          .filter((name) => name !== "")
          .map(plain)
          .join(" ")}: ${plain(problem)}`,
      );
    }
    if (problems.length > MOST_PROBLEMS) output.line(`  and ${problems.length - MOST_PROBLEMS} more; see --json`);
  }
}

function bothChosen(): OperationalError {
  return new OperationalError("cannot verify a snapshot and all of them: choose one", {
    kind: "usage",
    code: "both-chosen",
    hint: "Leave out --all or the snapshot.",
  });
}

function withoutDrill(flag: string): OperationalError {
  return new OperationalError(`cannot use ${flag} without --drill: nothing is restored`, {
    kind: "usage",
    code: "needs-drill",
    hint: `Add --drill, or leave ${flag} out.`,
  });
}
