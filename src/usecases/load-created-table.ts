import { OperationalError } from "../base/errors.ts";
import type { Creator } from "../drivers/creator.ts";
import type { Definition } from "../drivers/driver.ts";
import { storedColumnsOf } from "../plan/plan-restore.ts";
import type { StoredTable } from "../snapshot/manifest.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import type { Report } from "./progress.ts";
import { streamsOf } from "./table-streams.ts";

export interface LoadOptions {
  readonly reader: SnapshotReader;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** Loads rows into tables that were made for them, whatever today's checks say. */
export class CreatedTables {
  readonly #options: LoadOptions;
  readonly #creator: Creator;
  readonly #takenOff: Definition[] = [];

  constructor(options: LoadOptions, creator: Creator) {
    this.#options = options;
    this.#creator = creator;
  }

  /** Puts checks on again that rows violated, or could not be asked while other tables had none; gives a sentence for each that is NOT VALID. */
  async putChecksOn(): Promise<readonly string[]> {
    const warnings: string[] = [];
    for (const definition of this.#takenOff) {
      this.#options.signal.throwIfAborted();
      const warning = await this.#creator.create(definition);
      if (warning) warnings.push(warning);
    }
    return warnings;
  }

  async load(table: StoredTable): Promise<void> {
    for (let last = ""; ; ) {
      try {
        await this.#loadOnce(table);
        return;
      } catch (error) {
        const checks = await this.#creator.takeOffCheck(error);
        const message = error instanceof Error ? error.message : "";
        if (!checks || message === last) throw error;
        this.#takenOff.push(...checks);
        last = message;
      }
    }
  }

  async #loadOnce(table: StoredTable): Promise<void> {
    const { reader, report, signal } = this.#options;
    signal.throwIfAborted();
    const label = labelOf(table);
    report({ type: "table-start", table: label });
    const rows = await this.#creator.load({
      table,
      columns: storedColumnsOf(table),
      format: table.format,
      streams: streamsOf(reader, table, signal, (bytes) => report({ type: "rows", table: label, rows: 0, bytes })),
      isWhole: table.condition === undefined,
    });
    if (rows !== table.rows) {
      throw new OperationalError(`cannot restore ${label}: ${rows} rows arrived where the snapshot has ${table.rows}`, {
        kind: "database",
        code: "count-mismatch",
      });
    }
    report({ type: "rows", table: label, rows, bytes: 0 });
    report({ type: "table-done", table: label, rows });
  }
}

function labelOf({ schema, name }: StoredTable): string {
  return `${schema}.${name}`;
}
