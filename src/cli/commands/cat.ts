import { OperationalError } from "../../base/errors.ts";
import { openLeasedReader } from "../../usecases/open-leased-reader.ts";
import { readRows } from "../../usecases/read-rows.ts";
import type { RowTextFormat } from "../../usecases/row-text.ts";
import type { SelectedRows } from "../../usecases/select-rows.ts";
import type { CommandAction } from "../command.ts";
import { homeOf } from "../job-context.ts";
import { chooseDatabase, locateIn, openJob, warnOfPassedOver } from "../open-job.ts";
import { readList, readText } from "../option-values.ts";
import { writeData } from "../write-data.ts";

const FORMATS: readonly RowTextFormat[] = ["tsv", "csv", "json"];

/** Writes rows of one table of a snapshot to stdout. */
export const cat: CommandAction = async (context, { args, options }) => {
  const { json, signal } = context;
  const format = readFormat(options.format, json);
  const columns = readList(options.columns, "--columns");
  await using opened = await openJob(context, {
    job: String(args[0]),
    from: readText(options.from),
    identity: readText(options.identity),
  });
  const name = String(args[1]);
  const { prefix } = await chooseDatabase(context, opened, { database: readText(options.database), snapshots: [name] });
  const { keys } = opened;
  const located = await locateIn(context, opened, { prefix, name });
  await using reader = await openLeasedReader({
    home: homeOf(context),
    purpose: "cat",
    ...located,
    prefix,
    keys,
    signal,
  });
  const { table, pieces } = readRows({
    reader,
    table: String(args[2]),
    where: readText(options.where),
    columns,
    format,
    ...(json ? { wrap: (row: string) => `{"type":"row","values":${row}}` } : {}),
    signal,
  });
  let rows = 0;
  await writeData(
    context.stdout,
    counted(pieces, (more) => {
      rows += more;
    }),
    { signal },
  );
  const isWarned = warnOfPassedOver(context, reader);
  context.output.result({ snapshot: located.manifest.id, ...table, rows }, () => undefined);
  return located.hasWarnings || isWarned ? 3 : 0;
};

function readFormat(value: unknown, json: boolean): RowTextFormat {
  const text = readText(value) ?? (json ? "json" : "tsv");
  const format = FORMATS.find((known) => known === text);
  if (format && (format === "json" || !json)) return format;
  const reason = format ? "--json writes JSON lines" : "it is none of tsv, csv, json";
  throw new OperationalError(`cannot use --format ${text}: ${reason}`, {
    kind: "usage",
    code: "wrong-value",
    hint: format ? "Leave out --json, or --format." : "Write tsv, csv or json.",
  });
}

async function* counted(pieces: AsyncIterable<SelectedRows>, count: (rows: number) => void): AsyncIterable<Uint8Array> {
  for await (const { bytes, rows } of pieces) {
    count(rows);
    yield bytes;
  }
}
