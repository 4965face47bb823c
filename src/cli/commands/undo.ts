import { OperationalError } from "../../base/errors.ts";
import { findOutcome, probeDatabase } from "../../drivers/open-driver.ts";
import type { PastReplacement } from "../../drivers/replacer.ts";
import type { PlacedSnapshot, UnopenedDestination } from "../../snapshot/locate-snapshot.ts";
import { openLeasedReader } from "../../usecases/open-leased-reader.ts";
import { restoreSnapshot } from "../../usecases/restore-snapshot.ts";
import { checkStillLast, findSafetySnapshot, markUndoing, markUndone } from "../../usecases/safety-snapshot.ts";
import type { CommandAction } from "../command.ts";
import { homeOf } from "../job-context.ts";
import { chooseDatabase, locateIn, openJob } from "../open-job.ts";
import { readText, readThaw } from "../option-values.ts";
import { openProgress } from "../progress/progress-display.ts";
import { printRestored } from "../render/restore.ts";
import { STALL_TIMEOUT_MS } from "../timeouts.ts";
import { confirmPlan, refuseUnattendedWait, targetOf } from "./restore.ts";

const MARK_TIMEOUT_MS = 30_000;

/** Puts back what the last restore of a job replaced, from the safety snapshot that it took. */
export const undo: CommandAction = async (context, { args, options }) => {
  const thaw = readThaw(options);
  refuseUnattendedWait(context, options);
  await using opened = await openJob(context, {
    job: String(args[0]),
    identity: readText(options.identity),
    stores: options.plan !== true,
  });
  const chosen = await chooseDatabase(context, opened, { database: readText(options.database), snapshots: [] });
  const { prefix } = chosen;
  const { job, destinations, unopened, keys } = opened;
  const { signal } = context;
  const waiting = { stallTimeoutMs: STALL_TIMEOUT_MS, signal };
  const to = readText(options.to);
  const named = to === undefined ? undefined : await targetOf(context, job, to, { database: chosen.name });
  const finding = {
    job: job.name,
    into: named && (await probeDatabase(named.connection, context)).identity,
    destinations,
    unopened,
    prefix,
    keys,
    signal,
    askOutcome: async (snapshot: PlacedSnapshot, past: PastReplacement) => {
      const { connection } = named ?? (await targetOf(context, job, to, snapshot));
      return findOutcome(connection, past, waiting);
    },
  };
  const { snapshot: safety, doubts, unread } = await findSafetySnapshot(finding);
  const isAsked = options.plan === true || (context.isInteractive && options.yes !== true);
  if (unread[0] && !isAsked) throw perhapsNotLast(job.name, safety.id, unread[0]);
  if (doubts[0] && !isAsked) throw perhapsNotDone(job.name, safety.id, doubts[0]);
  // Before the question, not only in the result.
  for (const doubt of doubts) context.output.warn(doubt);
  const located = await locateIn(context, opened, { prefix, name: safety.id });
  const { manifest } = located;
  await using reader = await openLeasedReader({
    home: homeOf(context),
    purpose: "undo",
    ...located,
    destinations: safety.destinations,
    prefix,
    keys,
    signal,
  });
  const { connection, isNamed } = named ?? (await targetOf(context, job, to, manifest));
  using progress = await openProgress(context);
  const result = await restoreSnapshot({
    reader,
    target: connection,
    isNamed,
    planOnly: options.plan === true,
    confirm: (plan) => confirmPlan(context, plan, options),
    checkAgain: () => checkStillLast(safety, finding),
    takeSafetySnapshot: (request) => markUndoing(safety, request, { prefix, signal }),
    allowConversion: false,
    ignoreMissing: false,
    thaw,
    ...waiting,
    report: progress.report,
  }).catch((error: unknown) => {
    throw hintOfUndo(error, `rowkeep restore ${job.name} ${safety.id}`);
  });
  // The rows are back: who stopped it at the very end must not find them put back a second time.
  const marking = signal.aborted ? AbortSignal.timeout(MARK_TIMEOUT_MS) : signal;
  const marks = { prefix, now: context.now(), signal: marking };
  const unmarked = options.plan === true ? [] : await markUndone(safety, marks);
  progress[Symbol.dispose]();
  const told = [...result.warnings, ...reader.passedOver, ...unmarked];
  for (const warning of told) context.output.warn(warning);
  const warnings = [...doubts, ...told];
  const { plan, ...done } = result;
  context.output.result({ ...done, ...plan, warnings, snapshot: safety.id }, () =>
    printRestored(context.output, result),
  );
  return located.hasWarnings || (warnings.length > 0 && !plan) ? 3 : 0;
};

/** A refusal names options that only `restore` has. */
function hintOfUndo(error: unknown, restore: string): unknown {
  if (!(error instanceof OperationalError) || error.code !== "drift") return error;
  const { message, kind, code } = error;
  const hint = `${restore} puts these rows back, too, and can be told --tables, --allow-conversion or --ignore-missing.`;
  return new OperationalError(message, { kind, code, hint });
}

/** It would replace rows that nobody keeps, perhaps by those from before a restore that never was. */
function perhapsNotDone(job: string, id: string, doubt: string): OperationalError {
  return new OperationalError(`cannot undo the last restore of ${job}: ${doubt}`, {
    kind: "refused",
    code: "needs-confirmation",
    hint: `Look at it with rowkeep undo ${job} --plan; rowkeep restore ${job} ${id} puts these rows back and keeps those of now.`,
  });
}

/** A script reads no warning: it would put back what an older restore had replaced. */
function perhapsNotLast(job: string, id: string, { name, error }: UnopenedDestination): OperationalError {
  return new OperationalError(
    `cannot undo the last restore of ${job}: the newest safety snapshot may be at ${name}, which was not read: ${error.message}`,
    {
      kind: "refused",
      code: "needs-confirmation",
      hint: `Undo it when ${name} answers, or put back the newest one that was found: rowkeep restore ${job} ${id}`,
      cause: error,
    },
  );
}
