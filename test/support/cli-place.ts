import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach } from "vitest";
import { type CliResult, runCliHere } from "./cli.ts";

/** Where one test works at the command line. */
export interface CliPlace {
  /** A folder of its own, which is removed afterwards. */
  readonly folder: string;
  /** Where its job file is to be. */
  readonly file: string;
  readonly home: string;
  /** Runs a command line there, in this process. */
  readonly cli: (...args: string[]) => Promise<CliResult>;
}

/** Gives each test of a file such a place. */
export function useCliPlace(): CliPlace {
  let folder = "";
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));
  return {
    get folder() {
      return folder;
    },
    get file() {
      return join(folder, "shop.yaml");
    },
    get home() {
      return join(folder, "home");
    },
    cli: (...args) => runCliHere(args, { home: join(folder, "home"), cwd: folder }),
  };
}
