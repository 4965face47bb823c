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

/** Tries a destination of a job that is being made. Gives warnings; fails with kind `destination` or `job`. */
export async function tryDestination(
  context: CliContext,
  destination: WrittenDestination,
  index: number,
): Promise<readonly string[]> {
  // Whoever made it has checked it against the schema, or the job as a whole will be before it is written.
  const written = destination as unknown as JobDestination;
  const settings = await destinationSettingsOf(written, index, newJobSurroundings(context));
  return probeDestination(settings, context);
}
