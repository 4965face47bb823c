import { resolve } from "node:path";
import { OperationalError } from "../../base/errors.ts";
import type { DemoShop } from "../../usecases/demo/demo-shop.ts";
import type { CommandAction, Invocation } from "../command.ts";
import { commandTable } from "../command-table.ts";
import type { CliContext } from "../context.ts";
import { formatCount, formatDuration, formatPlural } from "../format.ts";
import { readText } from "../option-values.ts";
import { plain } from "../text-table.ts";
import { notAvailableYet } from "./unavailable.ts";

const DAMAGED = "public.reviews,public.products";

/** Shows the whole tour on an embedded database, by the same commands that a person would type. */
export const demo: CommandAction = async (context, { options }) => {
  const startedAt = performance.now();
  const folder = resolve(context.cwd, readText(options.dir) ?? "rowkeep-demo");
  // Asked before a server starts for nothing.
  for (const name of ["run", "list", "show", "restore", "verify"]) loaderOf(name);
  const { openDemoShop } = await import("../../usecases/demo/demo-shop.ts");
  say(context, "Starting a PostgreSQL server and filling a shop with rows …");
  await using shop = await openDemoShop(folder, { signal: context.signal });
  say(context, `The shop has ${formatCount(shop.totalRows)} rows in ${shop.tables.length} tables.`);
  await tour(context, shop);
  const durationMs = Math.round(performance.now() - startedAt);
  context.output.result({ folder, jobFile: shop.jobFile, rows: shop.totalRows, equal: true, durationMs }, () =>
    farewell(context, shop, { folder, durationMs }),
  );
  return undefined;
};

async function tour(context: CliContext, shop: DemoShop): Promise<void> {
  const job = shop.jobFile;
  // The commands of the tour have one result together: with --json they print nothing of their own.
  const inner: CliContext = { ...context, homeFlag: shop.home, output: context.output.part() };
  const before = await shop.fingerprints();

  title(context, "1. Back it up");
  await act(inner, `run ${job}`, { args: [[job]], options: {} });
  title(context, "2. See what is there");
  await act(inner, `list ${job}`, { args: [job], options: {} });
  await act(inner, `show ${job} latest`, {
    args: [job, "latest"],
    options: {},
  });

  title(context, "3. An accident");
  for (const accident of await shop.damage()) say(context, `  shop=# ${accident}`);
  const damaged = differences(before, await shop.fingerprints());
  say(context, `Now ${formatPlural(damaged.length, "table")} differ: ${damaged.join(", ")}`);

  title(context, "4. What a restore of the two tables would do");
  const options = { tables: DAMAGED };
  const command = `restore ${job} latest --tables ${DAMAGED}`;
  await act(inner, `${command} --plan`, { args: [job, "latest"], options: { ...options, plan: true } });
  title(context, "5. Restore them");
  await act(inner, `${command} --yes`, { args: [job, "latest"], options: { ...options, yes: true } });
  prove(context, before, await shop.fingerprints());

  title(context, "6. Check every hash of the snapshot");
  await act(inner, `verify ${job}`, { args: [job], options: {} });
}

async function act(context: CliContext, command: string, invocation: Invocation): Promise<void> {
  say(context, context.output.paint.bold(`$ rowkeep ${plain(command)}`));
  const action = await loaderOf(command.split(" ", 1)[0] ?? "")();
  const exitCode = (await action(context, invocation)) ?? 0;
  // 3 would be a warning: the tour shows it and goes on.
  if (exitCode !== 0 && exitCode !== 3) throw new Error(`rowkeep ${command} ended with ${exitCode}`);
}

function loaderOf(name: string): () => Promise<CommandAction> {
  const load = commandTable.find((command) => command.name === name)?.load;
  if (!load) throw notAvailableYet(name);
  return load;
}

/** The audit log is not equal, and must not be: the accident wrote to it, and it was not restored. */
function prove(context: CliContext, before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): void {
  const damaged = differences(before, after).filter((table) => table !== "Back Office.audit_log");
  if (damaged.length > 0) {
    throw new OperationalError(`cannot end the demo: ${damaged.join(", ")} differ after the restore`, {
      kind: "differences",
      code: "demo-differs",
      hint: "Please report this: the demo makes the same rows everywhere.",
    });
  }
  for (const table of DAMAGED.split(",")) {
    const name = table.replace("public.", "");
    say(context, `${context.output.paint.green("equal:")} ${name}, ${before.get(name)}, before and after`);
  }
  say(context, "All other tables are untouched; only the audit log has grown, as its triggers saw the accident.");
}

function differences(before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): string[] {
  return [...before].filter(([table, print]) => after.get(table) !== print).map(([table]) => table);
}

function farewell(context: CliContext, shop: DemoShop, end: { folder: string; durationMs: number }): void {
  const { output } = context;
  output.line();
  output.line(
    output.paint.green(`The tour took ${formatDuration(end.durationMs)}. The server is stopped and its data gone.`),
  );
  output.line(`Look at ${plain(end.folder)}:`);
  output.line("  shop.yaml    the job file");
  output.line(
    "  backups/     the snapshots: tar files, each with a RECOVER.md that says how to restore without rowkeep",
  );
  output.line(`Try: rowkeep list ${plain(shop.jobFile)} --home ${plain(shop.home)}`);
}

function title(context: CliContext, text: string): void {
  context.output.line();
  say(context, context.output.paint.cyan(text));
}

function say(context: CliContext, text: string): void {
  context.output.line(text);
}
