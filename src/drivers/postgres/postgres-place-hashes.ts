import type { SourceTable } from "../driver.ts";
import { HASHES_BYTES, type HashedPage, type PlaceHashes, type PlaceSum } from "../place-hashes.ts";
import type { RowForm } from "../row-form.ts";
import type { RowHash } from "../row-hash.ts";
import type { PostgresClient, RawRow } from "./postgres-client.ts";
import { hashesOf, placedDigestOf } from "./postgres-fingerprint-sql.ts";
import { PostgresFingerprints } from "./postgres-fingerprints.ts";
import { quoteName } from "./postgres-quote.ts";
import { lockLikeLeader } from "./postgres-table-lock.ts";

const OFFSET_BYTES = 2;

export class PostgresPlaceHashes implements PlaceHashes {
  readonly #withWorker: <T>(use: (worker: PostgresClient) => Promise<T>) => Promise<T>;
  readonly #encoding: string;

  /** `withWorker` lends a connection that shares the snapshot; `encoding` is the one in which the server holds text. */
  constructor(withWorker: <T>(use: (worker: PostgresClient) => Promise<T>) => Promise<T>, encoding: string) {
    this.#withWorker = withWorker;
    this.#encoding = encoding;
  }

  agreesOn(hash: RowHash): Promise<boolean> {
    const fingerprints = new PostgresFingerprints((_, work) => this.#withWorker(work), this.#encoding);
    return fingerprints.agreesOn(hash, { signal: new AbortController().signal });
  }

  async sums(
    table: SourceTable,
    { form, units, pages }: { readonly form: RowForm; readonly units: readonly number[]; readonly pages: number },
  ): Promise<readonly PlaceSum[]> {
    const { first, second } = hashesOf(form.hash, "l");
    const rows = await this.#scan(
      table,
      `select g, c.n, c.a, c.b
         from unnest($1::bigint[]) g
        cross join lateral (
                select count(*) as n, sum(${first}) as a, sum(${second}) as b
                  from (${linesOf(table, form, pages)} offset 0) x) c
        where c.n > 0`,
      units,
    );
    return rows.map(([unit, count, a, b]) => ({
      unit: Number(unit),
      rows: Number(count),
      first: BigInt(a ?? 0),
      second: BigInt(b ?? 0),
    }));
  }

  async rows(
    table: SourceTable,
    { form, pages }: { readonly form: RowForm; readonly pages: readonly number[] },
  ): Promise<readonly HashedPage[]> {
    const { first, second } = hashesOf(form.hash, "l");
    const rows = await this.#scan(
      table,
      `select g, c.rows
         from unnest($1::bigint[]) g
        cross join lateral (
                select encode(string_agg(substr(tidsend(x.at), 5, 2) || int8send(${first}) || int8send(${second}), ''),
                              'base64') as rows
                  from (${linesOf(table, form, 1)} offset 0) x) c
        where c.rows is not null`,
      pages,
    );
    return rows.map(([page, text]) => hashedPageOf(Number(page), Buffer.from(text ?? "", "base64")));
  }

  #scan(table: SourceTable, sql: string, units: readonly number[]): Promise<RawRow[]> {
    return this.#withWorker(async (worker) => {
      await lockLikeLeader(worker, table);
      return worker.query(sql, [`{${units.join(",")}}`]);
    });
  }
}

/** Selects place and line of the rows of unit `g`. */
function linesOf(table: SourceTable, form: RowForm, pages: number): string {
  return `select t.ctid as at, ${placedDigestOf(form)} as l from only ${quoteName(table.schema, table.name)} t
           where t.ctid >= format('(%s,0)', g * ${pages})::tid and t.ctid < format('(%s,0)', (g + 1) * ${pages})::tid`;
}

/** Two bytes of line pointer and the hashes, row by row. */
function hashedPageOf(page: number, bytes: Buffer): HashedPage {
  const size = OFFSET_BYTES + HASHES_BYTES;
  if (bytes.length % size !== 0) throw new RangeError("the server gave part of a row's hashes");
  const starts = Array.from({ length: bytes.length / size }, (_, index) => index * size);
  starts.sort((left, right) => bytes.readUInt16BE(left) - bytes.readUInt16BE(right));
  return {
    page,
    offsets: starts.map((at) => bytes.readUInt16BE(at)),
    hashes: Buffer.concat(starts.map((at) => bytes.subarray(at + OFFSET_BYTES, at + size))),
  };
}
