import type { DatabaseDescription, EarlierDefinitions, Source } from "../drivers/driver.ts";
import { renderSchemaSql } from "../snapshot/recover-sql.ts";
import type { SnapshotWriter } from "../snapshot/snapshot-writer.ts";
import { ROWKEEP_VERSION } from "../snapshot/version.ts";
import { distrustBase } from "./distrust-base.ts";
import type { BaseSnapshot } from "./reuse-chunks.ts";

export interface StoreDefinitionsOptions {
  readonly source: Source;
  readonly writer: Pick<SnapshotWriter, "addPlain">;
  /** Its definitions are taken over where nothing can have changed since. Left out: they are read. */
  readonly base?: BaseSnapshot | undefined;
  readonly signal: AbortSignal;
}

/** Stores what there is besides rows as SQL for people. Of two that a snapshot holds the later one counts. */
export async function storeDefinitions(options: StoreDefinitionsOptions): Promise<DatabaseDescription> {
  const { source, writer, base, signal } = options;
  const description = await source.describe({ earlier: base && earlierOf(source, base), signal });
  await writer.addPlain("schema.sql", Buffer.from(renderSchemaSql(description.definitions)));
  return description;
}

/** What the base has to offer; undefined where the server, or another rowkeep, may say the same in another way by now. */
function earlierOf(source: Source, base: BaseSnapshot): EarlierDefinitions | undefined {
  const { trust: token, definitionsMark: mark, definitions, notCaptured, rowkeepVersion } = base.reader.manifest;
  if (!token || !mark || rowkeepVersion !== ROWKEEP_VERSION || distrustBase(source, base)) return undefined;
  return { token, mark, definitions, notCaptured };
}
