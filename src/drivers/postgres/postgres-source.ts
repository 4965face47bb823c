import { OperationalError } from "../../base/errors.ts";
import type { TrustToken } from "../change-tracker.ts";
import type {
  Connection,
  DatabaseDescription,
  DescribeOptions,
  OpenSourceOptions,
  RowBatch,
  RowOptions,
  Segment,
  SequenceState,
  ServerIdentity,
  Source,
  SourceTable,
} from "../driver.ts";
import type { Fingerprints } from "../fingerprints.ts";
import { PostgresTracker, readTrustToken, SCAN_SETTINGS } from "./postgres-changes.ts";
import { refuseUnfinished } from "./created-content.ts";
import { PINNED_SETTINGS, type PostgresClient } from "./postgres-client.ts";
import { readDescription } from "./postgres-description.ts";
import { asUnconvertible, databaseError } from "./postgres-errors.ts";
import { type Borrow, PostgresFingerprints } from "./postgres-fingerprints.ts";
import { openBackupClient, PostgresEarly } from "./postgres-early.ts";
import { readIdentity } from "./postgres-identity.ts";
import { quoteLiteral, quoteName } from "./postgres-quote.ts";
import { copyOptions, copyStatement, LARGE_OBJECTS_COPY, segmentsOf } from "./postgres-rows.ts";
import { readSequences } from "./postgres-sequences.ts";
import { type CatalogTable, readTables } from "./postgres-tables.ts";
import { lockLikeLeader } from "./postgres-table-lock.ts";
import { renewWitness, type Witness } from "./postgres-witness.ts";
import { asSchemaLocked, GIVE_WAY, WAIT } from "./schema-changed.ts";

const HEARTBEAT_MS = 30_000;
const LOCK_ATTEMPTS = 4;
const RETRIABLE: ReadonlySet<unknown> = new Set(["lock-timeout", "not-found"]);
/**
 * A table is locked without waiting, its indexes by the statements themselves: a REINDEX that waits for one stream makes the next one
 * wait for itself, in a circle that no server sees.
 */
const INDEX_TIMEOUT = "10s";

/**
 * Opens one database at one instant. The order is what makes it one: the tables are locked first (so that no TRUNCATE
 * or rewriting ALTER TABLE can come between), the snapshot is taken second, the columns are read third, and sequences,
 * which no snapshot holds, are read last.
 */
export async function openPostgresSource(connection: Connection, options: OpenSourceOptions): Promise<Source> {
  await using stack = new AsyncDisposableStack();
  const given = options.early instanceof PostgresEarly && !options.early.isTaken ? options.early : undefined;
  const early = stack.use(given ?? new PostgresEarly(connection, options));
  const leader = stack.use(await early.lead());
  // A snapshot of it would look as good as any.
  await refuseUnfinished(leader, "read");
  // Before the snapshot: what is left behind must be part of it.
  const { witness, isSetBack } = options.track ? await renewWitness(leader, options.since) : NO_WITNESS;
  const locked = await lockTables(leader, options);
  const told = options.track ? await readTrustToken(leader) : undefined;
  const token = typeof told === "object" && witness !== undefined ? { ...told, witness } : told;
  const identity = await readIdentity(leader);
  const source = new PostgresSource({ leader, early, options, ...locked, identity, token, isSetBack });
  stack.move();
  return source;
}

const NO_WITNESS: Witness = { isSetBack: false };

interface Locked {
  readonly tables: readonly CatalogTable[];
  readonly snapshot: string;
  readonly takenAt: Date;
}

/** Locks every table, then takes the snapshot, until the locked tables are those that the snapshot sees. */
async function lockTables(leader: PostgresClient, options: OpenSourceOptions): Promise<Locked> {
  // To ask for the size of a table takes a lock, too.
  const patience = options.isAwaited ? { lock_timeout: "5s" } : {};
  for (let attempt = 1; ; attempt += 1) {
    await leader.begin("isolation level read committed read only", { search_path: "", ...patience });
    const wanted = await readTables(leader, options.choose);
    await leader.query("commit");
    await leader.begin("isolation level repeatable read read only", {
      search_path: "",
      lock_timeout: "20s",
      ...patience,
    });
    try {
      for (const names of batchesOf(
        wanted.map((table) => quoteName(table.schema, table.name)),
        200,
      )) {
        await leader.query(`lock table only ${names.join(", only ")} in access share mode`);
      }
    } catch (error) {
      const retriable = error instanceof OperationalError && RETRIABLE.has(error.code);
      if (!retriable || attempt === LOCK_ATTEMPTS || options.isAwaited) throw error;
      await leader.query("rollback");
      continue;
    }
    await leader.query("set local lock_timeout = 0");
    const [row] = await leader.query(
      "select pg_catalog.pg_export_snapshot(), pg_catalog.to_json(pg_catalog.clock_timestamp())#>>'{}'",
    );
    const seen = await readTables(leader, options.choose);
    if (sameTables(wanted, seen)) {
      return { tables: seen, snapshot: row?.[0] ?? "", takenAt: new Date(row?.[1] ?? "") };
    }
    if (attempt === LOCK_ATTEMPTS) throw schemaKeepsChanging(leader.connection);
    await leader.query("rollback");
  }
}

function schemaKeepsChanging(connection: Connection): OperationalError {
  return new OperationalError(
    `cannot read ${connection.database}: tables were created or dropped at each of ${LOCK_ATTEMPTS} attempts to lock them`,
    { kind: "database", code: "schema-changing", hint: "Run the backup when no schema migration is under way." },
  );
}

function sameTables(left: readonly CatalogTable[], right: readonly CatalogTable[]): boolean {
  return left.length === right.length && left.every((table, index) => table.oid === right[index]?.oid);
}

function* batchesOf<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let at = 0; at < items.length; at += size) yield items.slice(at, at + size);
}

interface SourceParts extends Locked {
  readonly leader: PostgresClient;
  readonly early: PostgresEarly;
  readonly options: OpenSourceOptions;
  readonly identity: ServerIdentity;
  readonly token: TrustToken | string | undefined;
  readonly isSetBack: boolean;
}

/** Ends what a connection does when the signal says so: nobody waits for the rest of a large table when something beside it has failed. */
function destroyOnAbort(worker: PostgresClient, signal: AbortSignal): Disposable {
  const onAbort = () => worker.destroy();
  signal.addEventListener("abort", onAbort, { once: true });
  return { [Symbol.dispose]: () => signal.removeEventListener("abort", onAbort) };
}

class PostgresSource implements Source {
  readonly identity: ServerIdentity;
  readonly consistency = "snapshot" as const;
  readonly takenAt: Date;
  readonly concurrency: number;
  readonly settings: Readonly<Record<string, string>>;
  readonly tables: readonly CatalogTable[];
  readonly tracker: PostgresTracker | undefined;
  readonly #leader: PostgresClient;
  readonly #early: PostgresEarly;
  readonly #options: OpenSourceOptions;
  /** Of rows as text, where it is not that of the sessions. */
  readonly #ownEncoding: string | undefined;
  /** Tables with rows that this login must not, or that nobody can read. */
  readonly #unreadable: readonly CatalogTable[];
  readonly #snapshot: string;
  readonly #idle: PostgresClient[] = [];
  readonly #all = new Set<PostgresClient>();
  /** Connections that are open or being opened. */
  #workers = 0;
  #readsThatGiveWay = 0;
  readonly #waiting: (() => void)[] = [];
  #closing: Promise<unknown> | undefined;
  readonly #heartbeat: NodeJS.Timeout;

  constructor(parts: SourceParts) {
    this.identity = parts.identity;
    const { clientEncoding } = parts.leader;
    // Without an encoding of its own, or with that of the session, there is nothing to convert.
    const isOwn = parts.options.ownEncoding && clientEncoding === "UTF8" && this.identity.encoding !== "UTF8";
    this.#ownEncoding = isOwn ? this.identity.encoding : undefined;
    this.settings = { ...PINNED_SETTINGS, client_encoding: this.#ownEncoding ?? clientEncoding };
    this.takenAt = parts.takenAt;
    this.concurrency = parts.options.parallel;
    this.#leader = parts.leader;
    this.#early = parts.early;
    this.#options = parts.options;
    const tables = parts.tables.filter((table) => table.holdsRows);
    this.tables = tables.filter((table) => !table.unreadable);
    this.#unreadable = tables.filter((table) => table.unreadable);
    this.#snapshot = parts.snapshot;
    this.tracker = parts.token === undefined ? undefined : this.#makeTracker(parts, parts.token);
    // Routers forget a connection that is silent for long; without the leader no further one can share the snapshot.
    this.#heartbeat = setInterval(() => void this.#leader.query("select 1").catch(() => undefined), HEARTBEAT_MS);
    this.#heartbeat.unref();
  }

  #makeTracker({ leader, isSetBack }: SourceParts, token: TrustToken | string): PostgresTracker {
    return new PostgresTracker({
      leader,
      token,
      isSetBack,
      encoding: this.identity.encoding,
      withWorker: (use) => this.#withWorker(use),
      commitNothing: async () => {
        await using other = await openBackupClient(leader.connection, this.#options);
        await other.query("select pg_catalog.pg_current_xact_id()");
      },
      copy: (options, prepare) => this.#copy(options, prepare),
    });
  }

  async #withWorker<T>(use: (worker: PostgresClient) => Promise<T>): Promise<T> {
    this.#options.signal.throwIfAborted();
    const worker = await this.#acquire();
    let isGood = false;
    try {
      const result = await use(worker);
      isGood = true;
      return result;
    } catch (error) {
      throw asSchemaLocked("cannot read the rows", error);
    } finally {
      this.#release(worker, isGood);
    }
  }

  async describe({ earlier }: DescribeOptions): Promise<DatabaseDescription> {
    const { choose } = this.#options;
    const { tracker } = this;
    const token = typeof tracker?.token === "object" ? tracker.token : undefined;
    const parts = { leader: this.#leader, choose, unreadable: this.#unreadable, token };
    const description = await this.#givingWay("cannot read the definitions", () => readDescription(parts, earlier));
    if (description.definitions !== earlier?.definitions) await tracker?.noteDefinitionsRead();
    return description;
  }

  segments(table: SourceTable, pieces: number): readonly Segment[] {
    return segmentsOf(table as CatalogTable, pieces, this.#leader.serverVersion);
  }

  rows(table: SourceTable, segment: Segment, options: RowOptions): AsyncIterable<RowBatch> {
    const prepare = async (worker: PostgresClient) => {
      await lockLikeLeader(worker, table);
      return copyStatement(table, segment, options.format ?? "text");
    };
    return this.#copy(options, prepare, table);
  }

  largeObjects(options: RowOptions): AsyncIterable<RowBatch> {
    return this.#copy(options, async () => LARGE_OBJECTS_COPY);
  }

  get fingerprints(): Fingerprints {
    return new PostgresFingerprints(this.#borrow, this.identity.encoding);
  }

  /** Lends a connection for work that is no stream of rows. */
  readonly #borrow: Borrow = async (table, work, signal) => {
    signal.throwIfAborted();
    return this.#withWorker(async (worker) => {
      using _ = destroyOnAbort(worker, signal);
      try {
        // It may have waited for its turn.
        signal.throwIfAborted();
        if (table) await lockLikeLeader(worker, table);
        return await work(worker);
      } catch (error) {
        signal.throwIfAborted();
        throw asUnconvertible(error, worker.connection, table);
      }
    });
  };

  /** `prepare` gives a COPY whose options, but for the format, are still to come. */
  async *#copy(
    options: RowOptions,
    prepare: (worker: PostgresClient) => Promise<string>,
    table?: SourceTable,
  ): AsyncIterable<RowBatch> {
    const { signal } = options;
    signal.throwIfAborted();
    const worker = await this.#acquire();
    using _ = destroyOnAbort(worker, signal);
    let finished = false;
    try {
      signal.throwIfAborted();
      const statement = await prepare(worker);
      const isText = (options.format ?? "text") === "text";
      const encoding = isText ? copyOptions({ format: "text", encoding: this.#ownEncoding }) : "";
      yield* worker.copyOut(`${statement}${encoding}`, {
        batchBytes: options.batchBytes,
        countMessages: isText,
      });
      finished = true;
    } catch (error) {
      signal.throwIfAborted();
      throw asSchemaLocked("cannot read the rows", asUnconvertible(error, worker.connection, table));
    } finally {
      this.#release(worker, finished);
    }
  }

  /** Lends a connection; the one who asks waits while as many as there may be are lent. */
  async #acquire(): Promise<PostgresClient> {
    for (;;) {
      const idle = this.#idle.pop();
      if (idle) return idle;
      if (this.#workers < this.concurrency) break;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
      if (this.#options.signal.aborted) {
        // Whoever waits behind must end too.
        this.#waiting.shift()?.();
        throw this.#options.signal.reason;
      }
    }
    this.#workers += 1;
    try {
      return await this.#openWorker();
    } catch (error) {
      this.#workers -= 1;
      this.#waiting.shift()?.();
      throw error;
    }
  }

  /** A connection whose transaction is broken, or that was left in the middle of a stream, is of no further use. */
  #release(worker: PostgresClient, isGood: boolean): void {
    if (isGood) {
      this.#idle.push(worker);
    } else {
      this.#workers -= 1;
      this.#all.delete(worker);
      worker.destroy();
    }
    this.#waiting.shift()?.();
  }

  async #openWorker(): Promise<PostgresClient> {
    this.#throwIfClosed();
    const { connection } = this.#leader;
    const worker = (await this.#early.take()) ?? (await openBackupClient(connection, this.#options));
    // Before anything is asked of it: who closes the source from now on closes it, too.
    this.#all.add(worker);
    try {
      this.#throwIfClosed();
      await worker.begin("isolation level repeatable read read only", { search_path: "", lock_timeout: INDEX_TIMEOUT });
      await worker.query(`set transaction snapshot ${quoteLiteral(this.#snapshot)}`);
      if (this.#options.track) await worker.query(SCAN_SETTINGS);
      const identity = await readIdentity(worker);
      if (
        identity.systemIdentifier !== this.identity.systemIdentifier ||
        identity.isReplica !== this.identity.isReplica
      ) {
        throw databaseError("share the snapshot with", new Error("a load balancer led to another server"), connection);
      }
    } catch (error) {
      this.#all.delete(worker);
      worker.destroy();
      throw error;
    }
    return worker;
  }

  /** When one of several statements failed, nobody waits for the others: they may still ask for a connection. */
  #throwIfClosed(): void {
    if (this.#closing) throw new RangeError("the source was closed");
  }

  sequences(): Promise<readonly SequenceState[]> {
    return this.#givingWay("cannot read the sequences", () => readSequences(this.#leader, this.#options.choose));
  }

  /** Reads with the leader what others may lock while they wait for our tables. */
  async #givingWay<T>(action: string, read: () => Promise<T>): Promise<T> {
    this.#readsThatGiveWay += 1;
    try {
      await this.#leader.query(GIVE_WAY);
      return await read();
    } catch (error) {
      throw asSchemaLocked(action, error);
    } finally {
      this.#readsThatGiveWay -= 1;
      // Whatever else the leader asks waits for as long as it takes. What failed has ended the transaction with all its settings.
      if (this.#readsThatGiveWay === 0) await this.#leader.query(WAIT).catch(() => undefined);
    }
  }

  leave(): void {
    clearInterval(this.#heartbeat);
    this.#closing ??= Promise.resolve();
    for (const client of [...this.#all, this.#early, this.#leader]) client.leave();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#heartbeat);
    this.#closing ??= Promise.all(
      [...this.#all, this.#early, this.#leader].map((client) => client[Symbol.asyncDispose]()),
    );
    await this.#closing;
  }
}
