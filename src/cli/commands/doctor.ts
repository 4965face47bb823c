import { type DoctorOptions, examineJob, type Examination, firstFailure } from "../../usecases/doctor.ts";
import type { CommandAction } from "../command.ts";
import { homeOf, readJobFor } from "../job-context.ts";
import type { Output } from "../output.ts";
import { openProgress } from "../progress/progress-display.ts";
import { plain } from "../text-table.ts";

/** Tries everything that a job needs; the exit code is that of the first failure, 3 when there are only warnings. */
export const doctor: CommandAction = async (context, { args }) => {
  const job = await readJobFor(context, String(args[0]));
  let found: Examination;
  {
    using progress = await openProgress(context);
    const { env, now, signal } = context;
    const options: DoctorOptions = { job, home: homeOf(context), env, now, signal, report: progress.report };
    found = await examineJob(options);
  }
  const { grants } = found;
  const checks = found.checks.map(({ error: _error, ...check }) => check);
  context.output.result({ ok: firstFailure(found.checks) === undefined, checks, grants }, () =>
    print(context.output, found),
  );
  const failure = firstFailure(found.checks);
  if (failure) return failure.exitCode;
  return checks.some(({ status }) => status === "warning") ? 3 : 0;
};

function print(output: Output, { checks, grants }: Examination): void {
  const { paint } = output;
  const colours = { ok: paint.green, warning: paint.yellow, failed: paint.red };
  let subject: string | undefined;
  const width = Math.max(...checks.map(({ name }) => name.length));
  for (const check of checks) {
    if (check.subject !== subject) output.line(paint.bold(plain(check.subject)));
    subject = check.subject;
    const status = colours[check.status](check.status.padEnd("warning".length));
    output.line(`  ${status}  ${check.name.padEnd(width)}  ${plain(check.message)}`);
    if (check.hint && check.status !== "ok") output.line(`  ${" ".repeat(11 + width)}${paint.dim(plain(check.hint))}`);
  }
  for (const { sql } of grants) {
    output.line();
    for (const line of sql.trimEnd().split("\n")) output.line(line);
  }
}
