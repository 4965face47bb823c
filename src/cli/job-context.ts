import { findHome, type Home } from "../job/home.ts";
import { type Job, readJob } from "../job/read-job.ts";
import type { Connection } from "../drivers/driver.ts";
import { connectionOfUrl } from "../job/connection.ts";
import { resolveSecret, type SecretSurroundings } from "../job/secrets.ts";
import type { CliContext } from "./context.ts";

/** The folders of jobs and state that this command works with. */
export function homeOf(context: CliContext): Home {
  return findHome({ homeFlag: context.homeFlag, env: context.env });
}

/** Reads the job that a person named. */
export function readJobFor(context: CliContext, nameOrPath: string): Promise<Job> {
  return readJob(nameOrPath, homeOf(context), context);
}

/** Reads a job for a command that needs no schedule, so that nobody who must restore is stopped by one: a wrong one is a warning. */
export async function readJobWithoutSchedule(
  context: CliContext,
  nameOrPath: string,
): Promise<{ readonly job: Job; readonly hasWarnings: boolean }> {
  let hasWarnings = false;
  const passOverSchedule = (reason: Error) => {
    hasWarnings = true;
    context.output.warn(reason.message);
  };
  const job = await readJob(nameOrPath, homeOf(context), { cwd: context.cwd, passOverSchedule });
  return { job, hasWarnings };
}

/** What the secrets of a job are resolved with. */
export function surroundingsOf(context: CliContext, job: { readonly folder: string }): SecretSurroundings {
  const warn = (message: string) => context.output.warn(message);
  return { env: context.env, folder: job.folder, signal: context.signal, warn };
}

/**
 * Resolves how to reach the database that a URL of the command line names. Other users can read a command line, so the URL may
 * be, or hold, what a secret of a job file may: `${env:NAME}`, `file:path` (relative to where the person is), `cmd:command`.
 */
export async function connectionOfArgument(context: CliContext, text: string, flag: string): Promise<Connection> {
  const url = await resolveSecret(text, flag, surroundingsOf(context, { folder: context.cwd }));
  return connectionOfUrl(url, context);
}
