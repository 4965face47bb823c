import type { ChosenTable, Definition, ObjectOwner, TableChoice } from "../../driver.ts";
import {
  captureAggregates,
  captureFunctions,
  capturePolicies,
  captureRules,
  captureTriggers,
  captureViews,
} from "./capture-code.ts";
import { captureExtensionDependencies } from "./capture-extension-dependencies.ts";
import { captureGrants } from "./capture-grants.ts";
import { captureInherited } from "./capture-inherited.ts";
import {
  captureCasts,
  captureOperatorClasses,
  captureOperatorFamilies,
  captureOperators,
} from "./capture-operators.ts";
import { capturePublications } from "./capture-publications.ts";
import { captureCollations, captureConfigurations, captureDictionaries } from "./capture-text-search.ts";
import { readOwners } from "./capture-owners.ts";
import { captureConstraints, captureIndexes, captureStatistics } from "./capture-keys.ts";
import { captureComments, captureExtensions, captureSchemas, captureTypes } from "./capture-schemas.ts";
import { captureDefaults, captureSequences, captureTables } from "./capture-tables.ts";
import type { CapturedObject, CatalogQuery } from "./captured-object.ts";
import { findNotCaptured } from "./find-not-captured.ts";
import { asSchemaChange, refuseChanged } from "./refuse-changed.ts";
import { type OrderedObject, orderDefinitions } from "./order-definitions.ts";

export interface ReadDefinitionsOptions {
  /** `server_version_num`. */
  readonly serverVersion: number;
  /** Tables that the job leaves out, as `readExcludedTables` gives them. */
  readonly excluded: ReadonlySet<string>;
  /** The server does not know the encoding of its texts: those that are not UTF-8 were read with U+FFFD. */
  readonly isUnsure?: boolean | undefined;
}

export interface CapturedDefinitions {
  /** In an order in which they can be executed under `search_path = ''`, those before the rows first. */
  readonly definitions: readonly Definition[];
  /** One sentence for each object that was found and left out. */
  readonly notCaptured: readonly string[];
}

/**
 * Reads the definitions of a database from its catalogs. The caller's transaction must have `search_path = ''`, so that
 * the server writes whole names. A fixed number of statements, whatever the number of objects. Fails with code `schema-changed`
 * when an object was dropped or renamed since the snapshot: it needs a new one.
 */
export async function readDefinitions(
  query: CatalogQuery,
  options: ReadDefinitionsOptions,
): Promise<CapturedDefinitions> {
  const objects = await captureObjects(query, options).catch((error: unknown) => {
    throw asSchemaChange(error);
  });
  const owners = await readOwners(query);
  const others = await findNotCaptured(query, options.excluded);
  const missing = new Set(others.flatMap(({ key }) => (key === undefined ? [] : [key])));
  const ordered = await orderDefinitions(
    query,
    objects.map((object) => withOwner(object, owners.get(object.key))),
    missing,
  );
  const { kept, left } = leaveOut(ordered, options);
  return {
    definitions: withPlaces(kept),
    notCaptured: [...left, ...others.map(({ sentence }) => sentence).filter((sentence) => sentence !== "")],
  };
}

async function captureObjects(
  query: CatalogQuery,
  { serverVersion }: ReadDefinitionsOptions,
): Promise<CapturedObject[]> {
  const objects: CapturedObject[] = [];
  for (const capture of [
    captureSchemas,
    captureExtensions,
    captureTypes,
    captureFunctions,
    captureCollations,
    captureDictionaries,
    captureConfigurations,
    captureOperators,
    captureOperatorFamilies,
    captureOperatorClasses,
    captureCasts,
    captureAggregates,
    (run: CatalogQuery) => captureTables(run, serverVersion),
    captureSequences,
    captureDefaults,
    captureViews,
    captureConstraints,
    captureInherited,
    captureIndexes,
    captureStatistics,
    captureTriggers,
    captureRules,
    capturePolicies,
    (run: CatalogQuery) => capturePublications(run, serverVersion),
    captureExtensionDependencies,
    captureComments,
    captureGrants,
  ]) {
    objects.push(...(await capture(query)));
  }
  await refuseChanged(query, objects);
  return objects;
}

function withOwner(object: CapturedObject, owner: ObjectOwner | undefined): CapturedObject {
  return owner ? { ...object, definition: { ...object.definition, owner } } : object;
}

/** Reads which tables the job leaves out: the JSON of schema and name of each. */
export async function readExcludedTables(
  query: CatalogQuery,
  choose: (table: ChosenTable) => TableChoice,
): Promise<ReadonlySet<string>> {
  const rows = await query(
    `select n.nspname, c.relname, rn.nspname, r.relname
       from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
       left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace where c.relkind in ('r', 'p')`,
  );
  const excluded = rows.filter(([schema, name, rootSchema, root]) => {
    const partition = root ? { partitionRoot: { schema: rootSchema ?? "", name: root } } : {};
    return choose({ schema: schema ?? "", name: name ?? "", ...partition }) === "excluded";
  });
  return new Set(excluded.map(([schema, name]) => JSON.stringify([schema, name])));
}

/** Tells what each one needs by its place in the list: a restore of some tables takes only that. */
function withPlaces(objects: readonly OrderedObject[]): readonly Definition[] {
  const places = new Map(objects.map(({ key }, place) => [key, place]));
  return objects.map(({ definition, needs }) => ({
    ...definition,
    needs: needs.flatMap((key) => places.get(key) ?? []).sort((left, right) => left - right),
  }));
}

/** They go with what they speak of. */
const REMARKS = new Set(["comment", "grant", "extension-dependency"]);

/**
 * Leaves out what belongs to excluded tables, in silence, and what needs them or could not be read exactly, with a sentence. Such a table is
 * left out with all that belongs to it; its rows stay.
 */
function leaveOut(
  objects: readonly OrderedObject[],
  { excluded, isUnsure }: Pick<ReadDefinitionsOptions, "excluded" | "isUnsure">,
) {
  const tables = new Set(excluded);
  const gone = new Set<string>();
  const left = new Map<string, string>();
  // Where objects need each other in a circle, one comes before what it needs.
  for (let before = -1; before < gone.size; ) {
    before = gone.size;
    for (const { key, needs, lacks, definition } of objects) {
      const { table, kind, schema, name } = definition;
      const belongs = table !== undefined && tables.has(JSON.stringify([table.schema, table.name]));
      const broken = needs.some((needed) => gone.has(needed));
      const isGarbled = isUnsure && JSON.stringify(definition).includes("\ufffd");
      if (gone.has(key) || !(belongs || broken || lacks || isGarbled)) continue;
      gone.add(key);
      if (belongs || (!isGarbled && REMARKS.has(kind))) continue;
      if (kind === "table") tables.add(JSON.stringify([schema, name]));
      const reason = lacks ? "it needs what is not captured either" : "it needs something that is left out";
      const why = isGarbled ? "its definition is not UTF-8" : reason;
      left.set(key, `${kind} ${schema ? `${schema}.` : ""}${name} is not captured: ${why}`);
    }
  }
  const kept = objects.filter(({ key }) => !gone.has(key));
  return { kept, left: objects.flatMap(({ key }) => left.get(key) ?? []) };
}
