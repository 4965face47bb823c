import { findHome, type Home } from "../job/home.ts";
import { type Job, readJob } from "../job/read-job.ts";
import type { SecretSurroundings } from "../job/secrets.ts";
import type { CliContext } from "./context.ts";

/** The folders of jobs and state that this command works with. */
export function homeOf(context: CliContext): Home {
  return findHome({ homeFlag: context.homeFlag, env: context.env });
}

/** Reads the job that a person named. */
export function readJobFor(context: CliContext, nameOrPath: string): Promise<Job> {
  return readJob(nameOrPath, homeOf(context), context);
}

/** What the secrets of a job are resolved with. */
export function surroundingsOf(context: CliContext, job: { readonly folder: string }): SecretSurroundings {
  const warn = (message: string) => context.output.warn(message);
  return { env: context.env, folder: job.folder, signal: context.signal, warn };
}
