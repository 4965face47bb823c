import { userInfo } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { messageOf, OperationalError } from "../base/errors.ts";
import { makeFolders } from "../base/make-folders.ts";

/** The folders in which rowkeep keeps jobs and its own state on this machine. */
export interface Home {
  /** Job files. */
  readonly jobs: string;
  /** Merged under every job, when it exists. */
  readonly defaultsFile: string;
  /** History, locks and caches: nothing that a restore needs. */
  readonly state: string;
  /** Secrets that `job create` was given, one file each. */
  readonly secrets: string;
}

export interface HomeOptions {
  /** Value of `--home`. */
  readonly homeFlag?: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly platform?: NodeJS.Platform;
}

/**
 * Finds the home: `--home`, then ROWKEEP_HOME, then the platform's folders (the XDG base directories, Library on macOS,
 * APPDATA and LOCALAPPDATA on Windows). Touches nothing. Fails with kind `usage` where the user has no home.
 */
export function findHome({ homeFlag, env, platform = process.platform }: HomeOptions): Home {
  const own = homeFlag ?? env["ROWKEEP_HOME"];
  if (own) return homeAt(resolve(own), resolve(own, "state"));
  const user = userFolderOf(env);
  if (platform === "win32") {
    const config = env["APPDATA"] ?? join(user, "AppData", "Roaming");
    const state = env["LOCALAPPDATA"] ?? join(user, "AppData", "Local");
    return homeAt(join(config, "rowkeep"), join(state, "rowkeep"));
  }
  if (platform === "darwin") {
    const support = join(user, "Library", "Application Support", "rowkeep");
    return homeAt(support, join(support, "state"));
  }
  const config = absolute(env["XDG_CONFIG_HOME"]) ?? join(user, ".config");
  const state = absolute(env["XDG_STATE_HOME"]) ?? join(user, ".local", "state");
  return homeAt(join(config, "rowkeep"), join(state, "rowkeep"));
}

/** Relative ones are to be ignored (XDG Base Directory Specification): two folders would be two homes, each with its own locks. */
function absolute(path: string | undefined): string | undefined {
  return path !== undefined && isAbsolute(path) ? path : undefined;
}

function userFolderOf(env: HomeOptions["env"]): string {
  const named = env["HOME"] || env["USERPROFILE"];
  if (named) return resolve(named);
  try {
    return userInfo().homedir;
  } catch (cause) {
    throw new OperationalError("cannot find the folder of jobs: HOME is not set, and this user has no home", {
      kind: "usage",
      code: "home",
      hint: "Set ROWKEEP_HOME, or give --home.",
      cause,
    });
  }
}

function homeAt(config: string, state: string): Home {
  return {
    jobs: join(config, "jobs"),
    defaultsFile: join(config, "defaults.yaml"),
    state,
    secrets: join(config, "secrets"),
  };
}

/** Creates a folder of the home, closed to other users. Fails with kind `usage`. */
export async function createHomeFolder(folder: string): Promise<void> {
  try {
    await makeFolders(folder);
  } catch (cause) {
    throw new OperationalError(`cannot create ${folder}: ${messageOf(cause)}`, {
      kind: "usage",
      code: "home",
      hint: "Choose another folder with --home or ROWKEEP_HOME.",
      cause,
    });
  }
}
