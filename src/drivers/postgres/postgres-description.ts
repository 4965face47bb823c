import type { DefinitionsMark, TrustToken } from "../change-tracker.ts";
import type { ChosenTable, DatabaseDescription, EarlierDefinitions, TableChoice } from "../driver.ts";
import type { CatalogQuery } from "./definitions/captured-object.ts";
import { lookAtLargeObjects } from "./definitions/find-not-captured.ts";
import { readDefinitions, readExcludedTables } from "./definitions/read-definitions.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { readDefinitionsMark } from "./postgres-definitions-mark.ts";
import type { CatalogTable } from "./postgres-tables.ts";

export interface DescriptionParts {
  readonly leader: PostgresClient;
  readonly choose: (table: ChosenTable) => TableChoice;
  /** Tables with rows that this login must not, or that nobody can read. */
  readonly unreadable: readonly CatalogTable[];
  /** Undefined where changes are not tracked, or the server's word is not to be trusted. */
  readonly token: TrustToken | undefined;
}

/** Reads what there is besides rows, in the leader's snapshot; definitions only where they may differ from earlier ones. */
export async function readDescription(
  { leader, choose, unreadable, token }: DescriptionParts,
  earlier: EarlierDefinitions | undefined,
): Promise<DatabaseDescription> {
  // What holds more than UTF-8 is looked for in each definition by itself.
  const query: CatalogQuery = (sql, values) => leader.queryLossy(sql, values);
  const ofTables = unreadable.map(
    (table) => `rows of "${table.schema}"."${table.name}" are not captured: ${table.unreadable}`,
  );
  // The catalogs behind the mark are without those of large objects.
  const largeObjects = await lookAtLargeObjects(query);
  const notRead = [...ofTables, ...largeObjects.notCaptured];
  const excluded = await readExcludedTables(query, choose);
  const besides = [[...excluded].sort(), notRead];
  const answer = token && (await readDefinitionsMark(leader, { token: earlier?.token ?? token, besides }));
  const isSame = earlier && answer && !answer.hasNewRows && areEqual(earlier.mark, answer.mark);
  const { serverVersion } = leader;
  const isUnsure = leader.clientEncoding !== "UTF8";
  const { definitions, notCaptured } = isSame
    ? earlier
    : await readDefinitions(query, { serverVersion, excluded, isUnsure });
  return {
    definitions,
    notCaptured: isSame ? notCaptured : [...notCaptured, ...notRead],
    largeObjects: largeObjects.count,
    mark: answer?.mark,
  };
}

function areEqual(one: DefinitionsMark, other: DefinitionsMark): boolean {
  return one.rows === other.rows && one.digest === other.digest;
}
