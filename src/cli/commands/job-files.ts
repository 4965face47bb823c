import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OperationalError } from "../../base/errors.ts";
import { hideSecrets, hideSecretsInText } from "../../job/hide-secrets.ts";
import { checkWithDefaults, findJobFile, listJobFiles, readJob } from "../../job/read-job.ts";
import { renderEnabled } from "../../job/job-text.ts";
import { nextFirings } from "../../job/schedule.ts";
import { hashJobFile, openStateStore } from "../../job/state-store.ts";
import { findSecretFiles } from "../../job/secret-files.ts";
import { assertAvailable, unavailableIn } from "../../job/availability.ts";
import { rewriteWhole } from "../../job/write-job.ts";
import { readJobStates } from "../../usecases/job-states.ts";
import type { CommandAction } from "../command.ts";
import { confirm } from "../confirm.ts";
import type { CliContext } from "../context.ts";
import { renderErrorText, reportOf } from "../error-report.ts";
import { formatTime } from "../format.ts";
import { homeOf, readJobFor } from "../job-context.ts";
import { printJobs } from "../render/jobs.ts";

/** Shows the jobs of the jobs folder and how they do. Exit code 2 when a job file cannot be used, as for `job validate`. */
export const jobList: CommandAction = async (context) => {
  const now = context.now();
  const warn = (message: string) => context.output.warn(message);
  const jobs = await readJobStates(homeOf(context), { cwd: context.cwd, now, warn });
  context.output.result({ jobs }, () => printJobs(context.output, jobs, now));
  return jobs.some(({ problem }) => problem !== undefined) ? 2 : 0;
};

/** Shows one job: its file, what it says, when it would run. Secrets stay the references that they are; those written out are hidden. */
export const jobShow: CommandAction = async (context, { args }) => {
  const job = await readJobFor(context, String(args[0]));
  const text = await readFile(job.path, "utf8");
  const firings = nextFirings(job.schedule, context.now(), 5).map(({ at, kind }) => ({ at: at.toISOString(), kind }));
  const unavailable = unavailableIn(job);
  const { path, folder: _folder, ...fields } = job;
  context.output.result({ job: hideSecrets(fields), file: path, nextRuns: firings, unavailable }, () => {
    context.output.line(context.output.paint.dim(path));
    context.output.line(hideSecretsInText(text).trimEnd());
    if (firings.length > 0) {
      context.output.line();
      context.output.line(
        `next firings: ${firings.map(({ at }) => formatTime(at)).join(", ")} (run by cron, not by rowkeep yet)`,
      );
    }
  });
  if (unavailable.length > 0)
    context.output.warn(`not available yet, so run refuses this job: ${unavailable.join(", ")}`);
  return 0;
};

/** Checks job files; without a name all of the jobs folder. Exit code 2 when one cannot be used. */
export const jobValidate: CommandAction = async (context, { args }) => {
  const home = homeOf(context);
  const names = [args[0] ?? []].flat();
  const wanted = names.length > 0 ? names : await listJobFiles(home);
  const results: { file: string; valid: boolean; problem?: string; code?: string; hint?: string | undefined }[] = [];
  for (const name of wanted) {
    const file = await findJobFile(name, home, context.cwd);
    try {
      // What run refuses is not valid here either.
      assertAvailable(await readJob(name, home, context));
      results.push({ file, valid: true });
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error;
      const { message: problem, code, hint } = error;
      results.push({ file, valid: false, problem, code, hint });
      if (!context.json)
        context.output.error(renderErrorText(reportOf(error, undefined), context.output.paintErr, context));
    }
  }
  context.output.result({ jobs: results }, () => {
    if (results.length === 0) context.output.line("no jobs yet: rowkeep job create makes one");
    for (const { file, valid } of results) {
      if (valid) context.output.line(`${context.output.paint.green("valid:")} ${file}`);
    }
  });
  return results.every(({ valid }) => valid) ? 0 : 2;
};

/** Opens a copy of the job file in the person's editor and takes it over once it is valid. */
export const jobEdit: CommandAction = async (context, { args }) => {
  const name = String(args[0]);
  const path = await existingFile(context, name);
  const editor = context.env["VISUAL"] || context.env["EDITOR"];
  if (!editor) {
    throw new OperationalError(`cannot edit ${path}: neither VISUAL nor EDITOR names an editor`, {
      kind: "usage",
      code: "no-editor",
      hint: "Set EDITOR, or change the file yourself and run rowkeep job validate.",
    });
  }
  const old = await readFile(path, "utf8");
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-edit-"));
  const copy = join(folder, `${name.replace(/[^0-9A-Za-z._-]+/g, "_")}.yaml`.replace(/\.yaml\.yaml$/, ".yaml"));
  await writeFile(copy, old, { mode: 0o600 });
  try {
    await runEditor(context, editor, copy);
    const text = await readFile(copy, "utf8");
    await checkWithDefaults({ path, text }, homeOf(context));
    if (text !== old) {
      await assertUnchanged(path, old);
      await rewriteWhole(path, text);
    }
  } catch (error) {
    const isEdited = (await readFile(copy, "utf8").catch(() => old)) !== old;
    if (!isEdited) await rm(folder, { recursive: true, force: true });
    throw isEdited && error instanceof OperationalError ? withKept(error, copy, path) : error;
  }
  await rm(folder, { recursive: true, force: true });
  context.output.result({ file: path }, () => context.output.line(`saved: ${path}`));
  return 0;
};

/** Somebody, or `job disable`, may have changed the file while the editor was open. */
async function assertUnchanged(path: string, old: string): Promise<void> {
  if ((await readFile(path, "utf8")) === old) return;
  throw new OperationalError(`cannot write ${path}: it was changed meanwhile`, { kind: "refused", code: "changed" });
}

function withKept({ message, kind, code, cause }: OperationalError, copy: string, path: string): OperationalError {
  const hint = `What you wrote is kept in ${copy}: correct it there and copy it to ${path}, or edit the job again.`;
  return new OperationalError(message, { kind, code, hint, cause });
}

function runEditor(context: CliContext, editor: string, file: string): Promise<void> {
  return new Promise((resolve, reject) => {
    // VISUAL and EDITOR may hold arguments (`code --wait`), as every tool that uses them reads them.
    const child = spawn(`${editor} "$ROWKEEP_EDIT"`, {
      shell: true,
      stdio: "inherit",
      env: { ...context.env, ROWKEEP_EDIT: file },
      signal: context.signal,
    });
    child.once("error", reject);
    child.once("close", (code) => {
      if (code === 0) return resolve();
      reject(
        new OperationalError(`cannot edit the job: ${editor} ended with ${code}`, {
          kind: "usage",
          code: "editor-failed",
        }),
      );
    });
  });
}

export const jobEnable: CommandAction = (context, { args }) => switchJob(context, String(args[0]), true);
export const jobDisable: CommandAction = (context, { args }) => switchJob(context, String(args[0]), false);

async function switchJob(context: CliContext, name: string, enabled: boolean): Promise<number> {
  const path = await existingFile(context, name);
  const text = await readFile(path, "utf8");
  await checkWithDefaults({ path, text }, homeOf(context));
  await rewriteWhole(path, renderEnabled(text, enabled));
  const job = await readJobFor(context, name);
  if (enabled && job.enabled === false) throw offByDefault(name, path);
  using state = await openStateStore(homeOf(context), (message) => context.output.warn(message));
  if (enabled) state.enable(job.name);
  const { disabled } = state.stateOf(job.name, await hashJobFile(path));
  context.output.result({ job: job.name, enabled: enabled && !disabled }, () => {
    context.output.line(`${job.name} is ${enabled ? "on" : "off"}`);
  });
  return 0;
}

function offByDefault(name: string, path: string): OperationalError {
  return new OperationalError(`cannot enable the job ${name}: defaults.yaml says that jobs are off`, {
    kind: "refused",
    code: "off-by-default",
    hint: `Write enabled: true in ${path}, or take enabled: false out of defaults.yaml.`,
  });
}

/** Deletes the job file, and the passwords that `job create` stored for it. Its snapshots stay where they are. */
export const jobDelete: CommandAction = async (context, { args, options }) => {
  const name = String(args[0]);
  const path = await existingFile(context, name);
  const secrets = await findSecretFiles(homeOf(context), path);
  const message = `Delete ${path}${secrets.length > 0 ? " and the passwords stored for it" : ""}? Its snapshots stay.`;
  if (options.yes !== true && !(await confirm(context, { message, action: `delete the job ${name}` }))) {
    throw new OperationalError(`cannot delete the job ${name}: you said no`, {
      kind: "refused",
      code: "not-confirmed",
    });
  }
  await rm(path);
  for (const file of secrets) await rm(file, { force: true });
  context.output.result({ file: path, secrets }, () => {
    for (const file of [path, ...secrets]) context.output.line(`deleted: ${file}`);
    context.output.line("The snapshots are where they were.");
  });
  return 0;
};

async function existingFile(context: CliContext, name: string): Promise<string> {
  const path = await findJobFile(name, homeOf(context), context.cwd);
  // Says which jobs there are when it is missing; a job that is not valid can still be edited or deleted.
  await readJobFor(context, name).catch((error: unknown) => {
    if (error instanceof OperationalError && error.code !== "invalid-job") throw error;
    if (!(error instanceof OperationalError)) throw error;
  });
  return path;
}
