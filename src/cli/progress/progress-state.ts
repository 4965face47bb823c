import type { ProgressEvent } from "../../usecases/progress.ts";

export interface TableProgress {
  readonly table: string;
  readonly estimatedRows: number;
  /** Bytes on the server's disk: the weight of the table in the overall share. */
  readonly weight: number;
  readonly rows: number;
  readonly bytes: number;
  readonly storedBytes: number | undefined;
  readonly startedAt: number | undefined;
  readonly endedAt: number | undefined;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Adds up progress events. Cheap: events come once a chunk, and each costs one look-up and a few additions. */
export class ProgressState {
  #tables = new Map<string, Mutable<TableProgress>>();
  readonly #running = new Set<Mutable<TableProgress>>();
  #phase = "";
  #startedAt: number | undefined;
  #rows = 0;
  #bytes = 0;
  #stored = 0;
  #weight = 0;
  #weightDone = 0;

  get phase(): string {
    return this.#phase;
  }
  /** Rows of all tables since the last plan. */
  get rows(): number {
    return this.#rows;
  }
  /** Raw bytes of all tables since the last plan. */
  get bytes(): number {
    return this.#bytes;
  }
  get storedBytes(): number {
    return this.#stored;
  }
  get startedAt(): number | undefined {
    return this.#startedAt;
  }
  get running(): readonly TableProgress[] {
    return [...this.#running];
  }
  /** All tables of the last plan, and those that came without one. */
  get tables(): readonly TableProgress[] {
    return [...this.#tables.values()];
  }

  /** Takes one event. `now` is in milliseconds of any steady clock. */
  apply(event: ProgressEvent, now: number): void {
    switch (event.type) {
      case "phase":
        this.#phase = event.text;
        return;
      case "plan":
        this.#begin(event.tables, now);
        return;
      case "table-start":
        this.#start(event.table, now);
        return;
      case "rows": {
        const table = this.#start(event.table, now);
        table.rows += event.rows;
        table.bytes += event.bytes;
        this.#rows += event.rows;
        this.#bytes += event.bytes;
        return;
      }
      case "table-done": {
        const table = this.#start(event.table, now);
        table.rows = event.rows;
        table.storedBytes = event.storedBytes;
        table.endedAt = now;
        this.#running.delete(table);
        this.#weightDone += table.weight;
        return;
      }
      case "stored":
        this.#stored += event.bytes;
        return;
      case "warning":
        return;
    }
  }

  /** Share of the planned work that is done, 0 to 1; undefined while nothing is planned. */
  share(): number | undefined {
    if (this.#weight === 0) return undefined;
    let done = this.#weightDone;
    for (const table of this.#running) done += table.weight * shareOf(table);
    return Math.min(1, done / this.#weight);
  }

  /** Milliseconds until the end at the speed so far; undefined while it is too early to tell. */
  remainingMs(now: number): number | undefined {
    const share = this.share();
    if (share === undefined || this.#startedAt === undefined) return undefined;
    const elapsed = now - this.#startedAt;
    if (elapsed < 2000 || share < 0.01) return undefined;
    return (elapsed * (1 - share)) / share;
  }

  #begin(tables: Extract<ProgressEvent, { type: "plan" }>["tables"], now: number): void {
    this.#tables = new Map();
    this.#running.clear();
    this.#startedAt = now;
    this.#rows = 0;
    this.#bytes = 0;
    this.#stored = 0;
    this.#weight = 0;
    this.#weightDone = 0;
    for (const { table, estimatedRows, bytes } of tables) {
      // An empty table is work too: without any weight a database of empty tables would have no share.
      const weight = bytes + 8192;
      this.#weight += weight;
      this.#tables.set(table, fresh(table, Math.max(0, estimatedRows), weight));
    }
  }

  #start(name: string, now: number): Mutable<TableProgress> {
    let table = this.#tables.get(name);
    if (!table) {
      table = fresh(name, 0, 0);
      this.#tables.set(name, table);
    }
    if (table.startedAt === undefined) {
      table.startedAt = now;
      this.#startedAt ??= now;
      this.#running.add(table);
    }
    return table;
  }
}

/** Share of one running table. Estimates are wrong at times: a running table is never told to be complete. */
export function shareOf(table: TableProgress): number {
  return table.estimatedRows > 0 ? Math.min(0.99, table.rows / table.estimatedRows) : 0;
}

function fresh(table: string, estimatedRows: number, weight: number): Mutable<TableProgress> {
  return {
    table,
    estimatedRows,
    weight,
    rows: 0,
    bytes: 0,
    storedBytes: undefined,
    startedAt: undefined,
    endedAt: undefined,
  };
}
