import { runSteps, type Step } from "../base/run-steps.ts";
import type { Creator } from "../drivers/creator.ts";
import type { Definition, ObjectOwner, TableName } from "../drivers/driver.ts";
import { renderOwnerFailures } from "../plan/plan-owners.ts";
import type { StoredTable } from "../snapshot/manifest.ts";
import { CreatedTables, type LoadOptions } from "./load-created-table.ts";

export interface FillOptions extends LoadOptions {
  /** Connections that write rows and build indexes. */
  readonly parallel: number;
  /** Execute the rights too; the roles that they name must be there. */
  readonly grants: boolean;
}

/** Makes everything that a snapshot holds in an empty database; gives warnings. Fails with kind `archive` or `database`. */
export async function fillDatabase(
  options: FillOptions,
  creator: Creator,
  owners: readonly ObjectOwner[],
): Promise<readonly string[]> {
  const { reader, report, signal } = options;
  const { manifest } = reader;
  report({ type: "phase", text: "creating definitions" });
  const refusedBefore = await creator.begin(manifest.id, manifest.definitions.filter(isBefore));
  const tables = manifest.tables.toSorted((left, right) => right.rawBytes - left.rawBytes);
  report({
    type: "plan",
    tables: tables.map((table) => ({ table: labelOf(table), estimatedRows: table.rows, bytes: table.rawBytes })),
  });
  const loaded = new CreatedTables(options, creator);
  const { steps, built, warnings: unmade } = stepsOf(options, creator, { tables, loaded });
  await runSteps(steps, options.parallel);
  if (manifest.largeObjects.chunks.length > 0) {
    await creator.loadLargeObjects(reader.chunks(manifest.largeObjects.chunks, { signal }));
  }
  report({ type: "phase", text: "creating triggers and the rest" });
  for (const definition of manifest.definitions) {
    if (definition.section !== "post-data" || isOptional(definition) || built.has(definition)) continue;
    signal.throwIfAborted();
    if (ON_ROWS.has(definition.kind)) unmade.push(...(await loaded.loadPostponed()));
    const warning = await creator.create(definition);
    if (warning) unmade.push(warning);
  }
  unmade.push(...(await loaded.loadPostponed()));
  const refused = [
    ...refusedBefore,
    ...unmade,
    ...(await loaded.putChecksOn()),
    ...(await createOptional(options, creator)),
  ];
  report({ type: "phase", text: "analysing" });
  const rights = options.grants ? manifest.definitions.filter(isOfOwner) : [];
  const { warnings, ownerFailures } = await creator.finish(manifest.sequences, { assign: owners, rights });
  return [...refused, ...warnings, ...renderOwnerFailures(ownerFailures, creator.identity.user)];
}

/** Publications and rights name what the target may lack or forbid: that is told, and the rest goes on. */
async function createOptional({ reader, signal, grants }: FillOptions, creator: Creator): Promise<readonly string[]> {
  const warnings: string[] = [];
  for (const definition of reader.manifest.definitions) {
    if (!isOptional(definition) || isOfOwner(definition) || (isRights(definition.kind) && !grants)) continue;
    signal.throwIfAborted();
    const warning = await creator.create(definition);
    if (warning) warnings.push(warning);
  }
  return warnings;
}

/** What acts on rows that come, or is asked of them all. */
const ON_ROWS = new Set(["check", "replica-identity", "foreign-key", "trigger", "rule", "policy", "refresh"]);

interface Steps {
  readonly steps: readonly Step[];
  /** The definitions that these steps have executed. */
  readonly built: ReadonlySet<Definition>;
  /** What the steps could not make, or not as it was. */
  readonly warnings: string[];
}

interface TablesToFill {
  /** The largest first. */
  readonly tables: readonly StoredTable[];
  readonly loaded: CreatedTables;
}

/**
 * Each table's rows, then its keys and indexes, then its statistics, the largest first; a foreign key as soon as both its
 * tables are ready. One connection sorts an index while another one loads, and the keys are checked side by side.
 */
function stepsOf({ reader, signal }: FillOptions, creator: Creator, { tables, loaded }: TablesToFill): Steps {
  const { definitions } = reader.manifest;
  const built = new Set<Definition>();
  const warnings: string[] = [];
  const ofTables = new Map<string, readonly Step[]>();
  const ofTable = groupByTable(definitions.filter(isOfTable));
  const execute = (definition: Definition) => async (idle: number) => {
    signal.throwIfAborted();
    const warning = await creator.create(definition, idle);
    if (warning) warnings.push(warning);
    built.add(definition);
  };
  for (const table of tables) {
    const name = labelOf(table);
    const work = workOf(table);
    // What of the table is still to be done when a step starts, foreign keys included.
    let way = work.load + definitions.filter((one) => isKeyOf(one, table)).length * work.index + work.analyse;
    way += (ofTable.get(name)?.length ?? 0) * work.index;
    const load: Step = { after: [], alone: [name], shared: [], way, run: () => loaded.load(table) };
    way -= work.load;
    const indexes = (ofTable.get(name) ?? []).map((definition): Step => {
      // Indexes of one table can be built side by side, a constraint locks it.
      const use = definition.kind === "index" ? { alone: [], shared: [name] } : { alone: [name], shared: [] };
      const step = { after: [load], ...use, way, run: execute(definition) };
      way -= work.index;
      return step;
    });
    const run = async () => {
      const warning = loaded.isPostponed(name) ? undefined : await creator.analyse(table);
      if (warning) warnings.push(warning);
    };
    const analyse: Step = { after: [load, ...indexes], alone: [name], shared: [], way, run };
    // The statistics of a partition are made together with those of the whole, at the end.
    ofTables.set(name, table.partitionRoot ? [load, ...indexes] : [load, ...indexes, analyse]);
  }
  const keys: Step[] = [];
  for (const definition of definitions) {
    const names = definition.kind === "foreign-key" ? tablesOf(definition, definitions) : undefined;
    if (!names?.every((name) => ofTables.has(name))) continue;
    const after = names.flatMap((name) => ofTables.get(name) ?? []);
    const table = tables.find((one) => isKeyOf(definition, one));
    const way = table ? workOf(table).index : 0;
    const put = execute(definition);
    const run = async (idle: number) => (names.some((name) => loaded.isPostponed(name)) ? undefined : put(idle));
    keys.push({ after, alone: names, shared: [], way, run });
  }
  return { steps: [...[...ofTables.values()].flat(), ...keys], built, warnings };
}

/** What an index, or the check of a foreign key, costs for each row, in bytes that could be loaded meanwhile. */
const INDEX_BYTES_A_ROW = 25;
/** What statistics cost for each value of the sample, in the same unit. */
const ANALYSE_BYTES_A_VALUE = 50;
/** By default the server looks at so many rows, however many there are. */
const SAMPLED_ROWS = 30_000;

function workOf({ rawBytes, rows, columns, partitionRoot }: StoredTable) {
  const values = partitionRoot ? 0 : Math.min(rows, SAMPLED_ROWS) * columns.length;
  return { load: rawBytes, index: rows * INDEX_BYTES_A_ROW, analyse: values * ANALYSE_BYTES_A_VALUE };
}

function isKeyOf({ kind, table }: Definition, { schema, name }: StoredTable): boolean {
  return kind === "foreign-key" && table?.schema === schema && table.name === name;
}

/** Gives the tables of a foreign key; undefined when the snapshot does not tell them, or when it needs more than tables and keys. */
function tablesOf({ table, needs }: Definition, all: readonly Definition[]): readonly string[] | undefined {
  const needed = needs?.map((place) => all[place]) ?? [];
  const keys = needed.filter((definition) => definition?.section === "post-data");
  if (!table || keys.length === 0 || !keys.every((key) => key && isOfTable(key))) return undefined;
  return [...new Set([table, ...keys.flatMap((key) => key?.table ?? [])].map(labelOf))];
}

function groupByTable(definitions: readonly Definition[]): ReadonlyMap<string, readonly Definition[]> {
  const groups = new Map<string, Definition[]>();
  for (const definition of definitions) {
    if (!definition.table) continue;
    const name = labelOf(definition.table);
    const group = groups.get(name);
    if (group) group.push(definition);
    else groups.set(name, [definition]);
  }
  return groups;
}

function isBefore({ section, kind }: Definition): boolean {
  return section === "pre-data" && !isRights(kind);
}

const OF_TABLE = new Set(["index", "constraint", "statistics"]);

/** Keys, indexes and extended statistics of one table that need nothing but its rows. */
function isOfTable({ section, kind, table }: Definition): boolean {
  return section === "post-data" && OF_TABLE.has(kind) && table !== undefined;
}

/** Nothing in the database needs it. */
function isOptional({ section, kind, name }: Definition): boolean {
  const ofPublication = kind === "publication" || (kind === "comment" && name.startsWith("PUBLICATION "));
  return isRights(kind) || (section === "post-data" && ofPublication);
}

/** Rights of an owner on what is its own: until the end it belongs to the connected role, which needs all rights. */
function isOfOwner({ kind, owner }: Definition): boolean {
  return isRights(kind) && owner !== undefined;
}

function isRights(kind: string): boolean {
  return kind === "grant";
}

function labelOf({ schema, name }: TableName): string {
  return `${schema}.${name}`;
}
