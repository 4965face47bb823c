import { existsSync } from "node:fs";
import { rmdir } from "node:fs/promises";
import { dirname } from "node:path";
import { destinationSettingsOf } from "../job/destination-settings-of.ts";
import type { WrittenDestination } from "../job/destination-url.ts";
import type { JobDestination } from "../job/job-schema.ts";
import type { SecretSurroundings } from "../job/secrets.ts";
import { probeDestination } from "../usecases/probe-destination.ts";
import type { CliContext } from "./context.ts";

/** What the secrets of a job are resolved with that has no file yet: paths are relative to where the person is. */
export function newJobSurroundings({ env, cwd, signal, output }: CliContext): SecretSurroundings {
  return { env, folder: cwd, signal, warn: (message) => output.warn(message) };
}

/** Tries the destinations of a job that is being made. Disposal removes the folders that this made, unless the job keeps them. */
export class DestinationTrial implements AsyncDisposable {
  readonly #context: CliContext;
  /** Those that were not there, the deepest of the last destination first. */
  #made: readonly string[] = [];

  constructor(context: CliContext) {
    this.#context = context;
  }

  /** Gives warnings; fails with kind `destination` or `job`. */
  async try(destination: WrittenDestination, index: number): Promise<readonly string[]> {
    const path = await this.#folderOf(destination, index);
    this.#made = [...missingFolders(path), ...this.#made];
    return probeDestination(await this.#settingsOf(destination, index), this.#context);
  }

  /** The job was written: these are its destinations. */
  async keep(destinations: readonly WrittenDestination[]): Promise<void> {
    const kept = new Set<string>();
    for (const [index, destination] of destinations.entries()) {
      for (const folder of pathAndAbove(await this.#folderOf(destination, index))) kept.add(folder);
    }
    this.#made = this.#made.filter((folder) => !kept.has(folder));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Only empty ones: what somebody has put there is not ours.
    for (const folder of this.#made) await rmdir(folder).catch(() => undefined);
  }

  #settingsOf(destination: WrittenDestination, index: number) {
    // Whoever made it has checked it against the schema, or the job as a whole will be before it is written.
    const written = destination as unknown as JobDestination;
    return destinationSettingsOf(written, index, newJobSurroundings(this.#context));
  }

  async #folderOf(destination: WrittenDestination, index: number): Promise<string> {
    if (destination.type !== "local") return "";
    const settings = await this.#settingsOf(destination, index);
    return settings.type === "local" ? settings.path : "";
  }
}

function missingFolders(path: string): readonly string[] {
  return pathAndAbove(path).filter((folder) => !existsSync(folder));
}

/** A folder and those above it, the deepest first. */
function pathAndAbove(path: string): readonly string[] {
  if (path === "") return [];
  return dirname(path) === path ? [path] : [path, ...pathAndAbove(dirname(path))];
}
