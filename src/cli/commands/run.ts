import { hostname } from "node:os";
import { isAbort, OperationalError } from "../../base/errors.ts";
import type { MadeSnapshot } from "../../usecases/made-snapshot.ts";
import type { RunResult } from "../../usecases/run-databases.ts";
import { runJob } from "../../usecases/run-job.ts";
import type { CommandAction } from "../command.ts";
import type { CliContext } from "../context.ts";
import { errorRecordOf, renderErrorOf, reportOf } from "../error-report.ts";
import { homeOf, readJobFor } from "../job-context.ts";
import { refuseUnavailable } from "../option-values.ts";
import { openProgress } from "../progress/progress-display.ts";
import { printRemoved } from "../render/retention.ts";
import { printMadeSnapshot } from "../render/snapshots.ts";
import { printRunSummary, type RunOutcome } from "../render/summary.ts";
import { STALL_TIMEOUT_MS } from "../timeouts.ts";

/** Backs up jobs now, one after the other. Several jobs: one that fails does not keep the others from running. */
export const run: CommandAction = async (context, { args, options }) => {
  refuseUnavailable(options, { due: "--due" });
  if (options.full && options.incremental) throw bothKinds();
  const kind = options.incremental ? "incremental" : "full";
  const serverHash = options["serverHash"] === true;
  if (serverHash && kind === "full") throw hashOfFull();
  const names = [args[0] ?? []].flat();
  if (names.length === 0) throw noJob();
  const snapshots: MadeSnapshot[] = [];
  const removed: RunResult["removed"][number][] = [];
  const warnings: string[] = [];
  const failures: { job: string; error: OperationalError }[] = [];
  const outcomes: RunOutcome[] = [];
  for (const name of names) {
    try {
      const result = await runOne(context, name, { kind, serverHash });
      if (!context.json) for (const snapshot of result.snapshots) printMadeSnapshot(context.output, snapshot);
      printRemoved(context.output, result.removed);
      snapshots.push(...result.snapshots);
      removed.push(...result.removed);
      warnings.push(...result.warnings);
      failures.push(...result.failures.map(({ error }) => ({ job: name, error })));
      outcomes.push(...outcomesOf(name, result));
    } catch (error) {
      if (names.length === 1 || isAbort(error) || !(error instanceof OperationalError)) throw error;
      if (!context.json) context.output.error(renderErrorOf(name, error, context));
      failures.push({ job: name, error });
      outcomes.push({ job: name });
    }
  }
  const errors = failures.map(({ job, error }) => {
    const { type: _type, ...fields } = errorRecordOf(reportOf(error, undefined));
    return { job, ...fields };
  });
  context.output.result({ snapshots, removed, warnings, ...(errors.length > 0 ? { errors } : {}) }, () =>
    printRunSummary(context.output, outcomes),
  );
  if (failures.length > 0) return Math.max(...failures.map(({ error }) => error.exitCode));
  return warnings.length > 0 ? 3 : 0;
};

function outcomesOf(job: string, { snapshots, failures }: RunResult): readonly RunOutcome[] {
  return [
    ...snapshots.map((snapshot) => ({ job, database: snapshot.database, snapshot })),
    ...failures.map(({ database }) => ({ job, database })),
  ];
}

async function runOne(
  context: CliContext,
  name: string,
  { kind, serverHash }: { readonly kind: MadeSnapshot["kind"]; readonly serverHash: boolean },
): Promise<RunResult> {
  const job = await readJobFor(context, name);
  using progress = await openProgress(context);
  const { env, now, signal } = context;
  const result = await runJob({
    job,
    kind,
    serverHash,
    home: homeOf(context),
    env,
    node: hostname(),
    now,
    stallTimeoutMs: STALL_TIMEOUT_MS,
    signal,
    report: progress.report,
  });
  progress.finish();
  for (const warning of result.warnings) context.output.warn(warning);
  return result;
}

function noJob(): OperationalError {
  return new OperationalError("cannot run: no job is named", {
    kind: "usage",
    code: "missing-argument",
    hint: "Name one or more: rowkeep status shows all.",
  });
}

function bothKinds(): OperationalError {
  return new OperationalError("cannot make a full and an incremental at once: choose one", {
    kind: "usage",
    code: "both-chosen",
    hint: "Leave out --full or --incremental.",
  });
}

function hashOfFull(): OperationalError {
  return new OperationalError("cannot compare hashes for a full: it reads everything", {
    kind: "usage",
    code: "no-incremental",
    hint: "Add --incremental, or leave out --server-hash.",
  });
}
