import { formatCount, formatPlural } from "../base/counts.ts";
import { OperationalError, reasonIn } from "../base/errors.ts";
import type { Creator } from "../drivers/creator.ts";
import type { Definition, TableName } from "../drivers/driver.ts";
import { storedColumnsOf } from "../plan/plan-restore.ts";
import type { StoredTable } from "../snapshot/manifest.ts";
import { ownEncodingOf } from "../snapshot/own-encoding.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import type { Report } from "./progress.ts";
import { streamsOf } from "./table-streams.ts";

export interface LoadOptions {
  readonly reader: SnapshotReader;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/**
 * Loads rows into tables that were made for them, whatever today's checks say, and those last that name what comes behind the rows, or belong
 * to another partition today.
 */
export class CreatedTables {
  readonly #options: LoadOptions;
  readonly #creator: Creator;
  readonly #postponed = new Map<string, StoredTable>();
  readonly #takenOff: Definition[] = [];

  constructor(options: LoadOptions, creator: Creator) {
    this.#options = options;
    this.#creator = creator;
  }

  /** Loads a table, or leaves it empty until `loadPostponed`. */
  async load(table: StoredTable): Promise<void> {
    try {
      await this.#loadAll(table);
    } catch (error) {
      const why = this.#creator.whyLater(error);
      if (!why || (why === "other-partition" && !table.partitionRoot)) throw error;
      if (why === "raised" && generatedOf(table).length === 0) throw error;
      this.#postponed.set(labelOf(table), table);
    }
  }

  isPostponed(label: string): boolean {
    return this.#postponed.has(label);
  }

  /** Loads what the rows of other tables and their indexes had to come before; gives warnings. */
  async loadPostponed(): Promise<readonly string[]> {
    const warnings: string[] = [];
    for (const [label, table] of this.#postponed) {
      // Once all partitions were loaded and none will be emptied any more, the server finds the right one for each row.
      await this.#loadAll(table, table.partitionRoot).catch((error: unknown) => {
        throw asUnplaced(table, error, this.#creator.whyLater(error));
      });
      const warning = table.partitionRoot ? undefined : await this.#creator.analyse(table);
      if (warning) warnings.push(warning);
      this.#postponed.delete(label);
    }
    return warnings;
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

  async #loadAll(table: StoredTable, root?: TableName): Promise<void> {
    for (let last = ""; ; ) {
      try {
        await this.#loadOnce(table, root);
        return;
      } catch (error) {
        const checks = await this.#creator.takeOffCheck(error, table);
        const message = error instanceof Error ? error.message : "";
        // What is not there any more was taken off by another stream; what is not there and refuses rows again was made up by a function.
        if (!checks || (checks.length === 0 && message === last)) throw error;
        this.#takenOff.push(...checks);
        last = checks.length === 0 ? message : "";
      }
    }
  }

  async #loadOnce(table: StoredTable, root: TableName | undefined): Promise<void> {
    const { reader, report, signal } = this.#options;
    signal.throwIfAborted();
    const label = labelOf(table);
    report({ type: "table-start", table: label });
    const rows = await this.#creator.load({
      table: root ?? table,
      columns: storedColumnsOf(table),
      format: table.format,
      encoding: ownEncodingOf(reader.manifest),
      streams: streamsOf(reader, table, signal, (bytes) => report({ type: "rows", table: label, rows: 0, bytes })),
      isWhole: table.condition === undefined && root === undefined,
    });
    if (rows !== table.rows) {
      throw new OperationalError(
        `cannot restore ${label}: ${formatPlural(rows, "row")} arrived where the snapshot has ${formatCount(table.rows)}`,
        {
          kind: "database",
          code: "count-mismatch",
        },
      );
    }
    report({ type: "rows", table: label, rows, bytes: 0 });
    report({ type: "table-done", table: label, rows });
  }
}

function asUnplaced(table: StoredTable, error: unknown, why: ReturnType<Creator["whyLater"]>): unknown {
  if (!why || !(error instanceof OperationalError)) return error;
  const todo = {
    "unknown-name": "Restore what its rows name too",
    "other-partition": "Restore all partitions of its table",
    raised: `Change in the source what computes its generated column ${generatedOf(table).join(", ")}, and back it up again`,
  };
  return new OperationalError(`cannot restore the rows of ${labelOf(table)}: ${reasonIn(error)}`, {
    kind: error.kind,
    code: error.code,
    hint: `${todo[why]}, or choose other tables with --tables.`,
    cause: error.cause,
  });
}

function generatedOf({ columns }: StoredTable): readonly string[] {
  return columns.filter(({ generated }) => generated === "stored").map(({ name }) => name);
}

function labelOf({ schema, name }: StoredTable): string {
  return `${schema}.${name}`;
}
