import { type AcknowledgedSnapshot, acknowledgeAnomalies, describeAnomaly } from "../../usecases/anomaly-brake.ts";
import type { CommandAction } from "../command.ts";
import { openJob } from "../open-job.ts";
import { readText } from "../option-values.ts";
import { plain } from "../text-table.ts";

/** Says that what shrank or vanished is as it should be: prune goes on. */
export const acknowledge: CommandAction = async (context, { args, options }) => {
  await using opened = await openJob(context, {
    job: String(args[0]),
    identity: readText(options.identity),
  });
  const { job, destinations, keys } = opened;
  const { signal } = context;
  const warnings: string[] = [];
  const acknowledged: AcknowledgedSnapshot[] = [];
  for (const { prefix } of opened.databases) {
    const warn = (message: string) => warnings.push(message);
    const braking = { job, prefix, destinations, keys, now: context.now(), warn, signal };
    acknowledged.push(...(await acknowledgeAnomalies(braking)));
  }
  for (const warning of warnings) context.output.warn(warning);
  context.output.result({ acknowledged, warnings }, () => {
    if (acknowledged.length === 0) context.output.line("nothing to acknowledge");
    for (const { id, anomalies } of acknowledged) {
      context.output.line(`acknowledged: ${plain(id)}`);
      for (const anomaly of anomalies) context.output.line(`      ${plain(describeAnomaly(anomaly))}`);
    }
  });
  return warnings.length > 0 || opened.hasWarnings ? 3 : 0;
};
