import { describeAnomaly } from "../../usecases/anomaly-brake.ts";
import { type ShownSnapshot, showSnapshot } from "../../usecases/show-snapshot.ts";
import type { CommandAction } from "../command.ts";
import { formatBytes, formatCount, formatTime } from "../format.ts";
import { chooseDatabase, locateIn, openJob } from "../open-job.ts";
import { readText } from "../option-values.ts";
import { formatCarriedOver, printSnapshot } from "../render/snapshots.ts";

/** Shows one snapshot and its tables. */
export const show: CommandAction = async (context, { args, options }) => {
  await using job = await openJob(context, {
    job: String(args[0]),
    from: readText(options.from),
    identity: readText(options.identity),
  });
  const name = String(args[1]);
  const chosen = { database: readText(options.database), snapshots: [name] };
  const { prefix } = await chooseDatabase(context, job, chosen);
  const located = await locateIn(context, job, { prefix, name });
  const shown = showSnapshot(located);
  context.output.result({ ...shown }, () => {
    printSnapshot(context.output, factsOf(shown), shown.tables);
    const { notCaptured, warnings, anomalies = [] } = shown.snapshot;
    for (const message of [...notCaptured, ...warnings, ...anomalies.map(describeAnomaly)]) {
      context.output.warn(message);
    }
  });
  return located.hasWarnings ? 3 : 0;
};

function factsOf({ snapshot, tables }: ShownSnapshot): readonly (readonly [string, string])[] {
  const { source } = snapshot;
  return [
    ["snapshot", snapshot.id],
    ["job", snapshot.job],
    ["database", `${snapshot.database} (${source.engine} ${source.version})`],
    ["kind", snapshot.kind],
    ...(snapshot.references ? [["builds on", snapshot.references.join(", ")] as const] : []),
    ...(snapshot.carriedOver ? [["carried over", formatCarriedOver(snapshot.carriedOver)] as const] : []),
    ["time", formatTime(snapshot.createdAt)],
    ["finished", formatTime(snapshot.finishedAt)],
    ["consistency", snapshot.consistency],
    ["tables", formatCount(tables.length)],
    ["rows", formatCount(snapshot.rows)],
    ["size", `${formatBytes(snapshot.rawBytes)} stored as ${formatBytes(snapshot.storedBytes)}`],
    ["encryption", snapshot.encrypted ? "age" : "none"],
    ["compression", `${snapshot.compression.codec} level ${snapshot.compression.level}`],
    ...(snapshot.largeObjects > 0 ? [["large objects", formatCount(snapshot.largeObjects)] as const] : []),
    ...(snapshot.files > 0 ? [["files", formatCount(snapshot.files)] as const] : []),
    ...(snapshot.safetyOf ? [["safety of", snapshot.safetyOf.restoredSnapshot] as const] : []),
    ["where", snapshot.destinations.join(", ")],
    ["written by", `rowkeep ${snapshot.rowkeepVersion}`],
  ];
}
