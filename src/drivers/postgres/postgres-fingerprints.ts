import type { Segment, SourceTable } from "../driver.ts";
import type {
  BucketSums,
  FindRequest,
  Fingerprints,
  FoundRow,
  ListRequest,
  ShownRow,
  ShowRequest,
  SumsRequest,
  Waiting,
} from "../fingerprints.ts";
import type { RowForm } from "../row-form.ts";
import { type RowHash, RowHasher } from "../row-hash.ts";
import { bytesOfText, textOfBytes } from "../text-bytes.ts";
import type { PostgresClient, RawRow } from "./postgres-client.ts";
import {
  countQuery,
  findQuery,
  listQuery,
  type Passage,
  probeQuery,
  probesOf,
  showQuery,
  sumsQuery,
} from "./postgres-fingerprint-sql.ts";

/** Lends a connection that shares the snapshot, with this table locked; it is closed when the work fails. */
export type Borrow = <T>(
  table: SourceTable | undefined,
  work: (worker: PostgresClient) => Promise<T>,
  signal: AbortSignal,
) => Promise<T>;

const FETCHED_ROWS = 5000;

/** Memory for the sums of all buckets; hashing, not sorting. */
const SETTINGS = "set local work_mem = '64MB'; set local enable_sort = off; set local cursor_tuple_fraction = 1";

export class PostgresFingerprints implements Fingerprints {
  readonly #borrow: Borrow;
  readonly #encoding: string;

  /** `encoding` is the one in which the server holds text: its hash is one of those bytes. */
  constructor(borrow: Borrow, encoding: string) {
    this.#borrow = borrow;
    this.#encoding = encoding;
  }

  async agreesOn(hash: RowHash, { signal }: Waiting): Promise<boolean> {
    if (hash.method === "lookup3" && !["UTF8", "SQL_ASCII", hash.encoding].includes(this.#encoding)) return false;
    const hasher = new RowHasher(hash);
    const rows = await this.#query(undefined, probeQuery(hash), signal);
    return probesOf(hash).every((probe, index) => {
      const bytes = Buffer.from(probe);
      hasher.update(bytes, bytes.length);
      return rows[index]?.[0] === String(hasher.first) && rows[index]?.[1] === String(hasher.second);
    });
  }

  async count(table: SourceTable, { signal }: Waiting): Promise<number> {
    const [row] = await this.#query(table, countQuery(table), signal);
    return Number(row?.[0]);
  }

  async sums(table: SourceTable, segment: Segment, request: SumsRequest): Promise<BucketSums> {
    const rows = await this.#query(table, sumsQuery(table, segment, request), request.signal);
    return new Map(
      rows.map(([bucket, count, first, second]) => [
        Number(bucket),
        { rows: Number(count), first: BigInt(first ?? 0), second: BigInt(second ?? 0) },
      ]),
    );
  }

  list(table: SourceTable, { form, buckets, take, signal }: ListRequest): Promise<void> {
    const passage = this.#passageOf(form);
    return this.#borrow(
      table,
      async (worker) => {
        await worker.query(SETTINGS);
        await worker.query(`declare listed no scroll cursor for ${listQuery(table, form, buckets, passage)}`);
        for (;;) {
          const rows = await worker.query(`fetch ${FETCHED_ROWS} from listed`);
          take(
            rows.map((row) => ({
              key: row.slice(0, form.key.length).map((value) => arrivedText(String(value), passage)),
              hash: row.slice(-3, -1).join(":"),
              count: Number(row.at(-1)),
            })),
          );
          if (rows.length < FETCHED_ROWS) break;
        }
        await worker.query("close listed");
      },
      signal,
    );
  }

  async find(table: SourceTable, { form, keys, signal }: FindRequest): Promise<readonly FoundRow[]> {
    const passage = this.#passageOf(form);
    const parameters = form.key.map((_, index) => keys.map((key) => sendableText(key[index] ?? "", passage)));
    const rows = await this.#query(table, findQuery(table, form, passage), signal, parameters);
    return rows.map((row) => ({
      key: row.slice(0, form.key.length).map((value) => arrivedText(String(value), passage)),
      columns: row.slice(form.key.length),
    }));
  }

  async show(table: SourceTable, { form, hashes, signal }: ShowRequest): Promise<readonly ShownRow[]> {
    const passage = this.#passageOf(form);
    const firsts = hashes.map((hash) => hash.slice(0, hash.indexOf(":")));
    const rows = await this.#query(table, showQuery(table, form, firsts, passage), signal);
    const wanted = new Set(hashes);
    return rows
      .map(([first, second, ...values]) => ({
        hash: `${first}:${second}`,
        values: values.map((value) => (value === null ? null : arrivedText(value, passage))),
      }))
      .filter(({ hash }) => wanted.has(hash));
  }

  #passageOf({ hash }: RowForm): Passage {
    return this.#encoding === "SQL_ASCII" ? this.#encoding : hash.encoding;
  }

  #query(
    table: SourceTable | undefined,
    sql: string,
    signal: AbortSignal,
    values?: readonly unknown[],
  ): Promise<RawRow[]> {
    return this.#borrow(
      table,
      async (worker) => {
        await worker.query(SETTINGS);
        return worker.query(sql, values);
      },
      signal,
    );
  }
}

function arrivedText(value: string, passage: Passage): string {
  return passage === undefined ? value : textOfBytes(Buffer.from(value, "hex"));
}

function sendableText(value: string, passage: Passage): string {
  return passage === undefined ? value : bytesOfText(value).toString("hex");
}
