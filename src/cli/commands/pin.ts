import { pinSnapshot } from "../../usecases/pin-snapshot.ts";
import type { CommandAction } from "../command.ts";
import { chooseDatabase, openJob } from "../open-job.ts";
import { readText } from "../option-values.ts";
import { plain } from "../text-table.ts";

/** Keeps a snapshot whatever the retention says. */
export const pin: CommandAction = (context, invocation) => setPinned(true, context, invocation);

/** Leaves a snapshot to the retention again. */
export const unpin: CommandAction = (context, invocation) => setPinned(false, context, invocation);

async function setPinned(pinned: boolean, ...[context, { args, options }]: Parameters<CommandAction>): Promise<number> {
  await using job = await openJob(context, { job: String(args[0]) });
  const name = String(args[1]);
  const { prefix } = await chooseDatabase(context, job, { database: readText(options.database), snapshots: [name] });
  const { destinations, unopened, keys } = job;
  const { signal } = context;
  const result = await pinSnapshot({ destinations, unopened, prefix, keys, name, pinned, now: context.now(), signal });
  for (const warning of result.warnings) context.output.warn(warning);
  context.output.result({ ...result, pinned }, () => {
    const where = result.destinations.map(plain).join(", ");
    context.output.line(`${pinned ? "pinned" : "no longer pinned"}: ${plain(result.id)} at ${where}`);
  });
  return result.warnings.length > 0 || job.hasWarnings ? 3 : 0;
}
