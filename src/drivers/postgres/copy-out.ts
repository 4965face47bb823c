import type { Socket } from "node:net";
import { formatPlural } from "../../base/counts.ts";
import type { RowBatch } from "../driver.ts";
import { CopySocket } from "./copy-socket.ts";

/**
 * Message codes of the PostgreSQL frontend/backend protocol
 * (https://www.postgresql.org/docs/current/protocol-message-formats.html).
 */
const COPY_DATA = 0x64;
const COPY_DONE = 0x63;
const COPY_OUT_RESPONSE = 0x48;
const READY_FOR_QUERY = 0x5a;
const HEADER_BYTES = 5;
/** Up to here a loop over words is faster than the call of a native copy. */
const SHORT_ROW_BYTES = 160;

export interface CopyOutOptions {
  readonly batchBytes: number;
  /** COPY text sends one message a row, so rows are counted by messages; COPY binary does not promise that. */
  readonly countMessages: boolean;
  /** Buffers of the connection that no COPY uses: taken from here, and put back when the COPY has ended well. */
  readonly buffers: Buffer[];
  readonly stallTimeoutMs: number;
  readonly translate: (error: unknown) => unknown;
  readonly destroy: () => void;
}

interface PgConnection {
  readonly stream: Socket;
  query(text: string): void;
}

/**
 * A query of `pg` that takes the socket's bytes itself while a COPY runs: row messages are copied once, from the
 * socket's chunk into a batch, without an object per row; every other message goes on to the client's own parser.
 *
 * Two buffers take turns, so one batch is filled while the other is being used. When both are full the socket is
 * paused, and the server waits: memory does not depend on the table or on the size of a row.
 */
export class CopyOutQuery implements AsyncIterable<RowBatch> {
  readonly #text: string;
  readonly #options: CopyOutOptions;
  #socket: Socket | undefined;
  #parse: ((chunk: Buffer) => void) | undefined;

  readonly #free: Buffer[];
  #allocated: number;
  #fill: Buffer | undefined;
  #filled = 0;
  #rows = 0;
  #totalRows = 0;
  /** Bytes of the current row message that are still to come. */
  #rowBytesLeft = 0;
  /** Start (a copy) of a message that is not complete: a header, or a message for the client's parser. */
  #carry: Buffer | undefined;
  /** What arrived when both buffers were full, where it lies: nothing more is read until it was taken. */
  #waiting: Buffer | undefined;

  readonly #ready: { buffer: Buffer; bytes: number; rows: number }[] = [];
  #done = false;
  #error: unknown;
  #wake: (() => void) | undefined;
  #lastProgressAt = 0;
  #watchdog: NodeJS.Timeout | undefined;

  constructor(text: string, options: CopyOutOptions) {
    this.#text = text;
    this.#options = options;
    this.#free = options.buffers.filter((buffer) => buffer.length === options.batchBytes);
    this.#allocated = this.#free.length;
    options.buffers.length = 0;
  }

  /** Whether the server is done with it, well or badly. */
  get ended(): boolean {
    return this.#done;
  }

  /** Called by `pg` when the connection is idle and this query's turn has come. */
  submit(connection: PgConnection): void {
    const socket = connection.stream;
    const [parse] = socket.listeners("data");
    this.#socket = socket;
    this.#parse = parse as (chunk: Buffer) => void;
    if (socket instanceof CopySocket) {
      socket.takeOver(this.#onData);
    } else {
      socket.removeListener("data", this.#parse);
      socket.on("data", this.#onData);
    }
    this.#lastProgressAt = performance.now();
    this.#watchdog = setInterval(() => this.#checkStall(), Math.min(1000, this.#options.stallTimeoutMs / 2)).unref();
    connection.query(this.#text);
  }

  /** Gives false when the rest of the bytes waits for a free buffer. */
  readonly #onData = (chunk: Buffer): boolean => {
    this.#lastProgressAt = performance.now();
    if (this.#waiting) {
      // A TLS socket may still deliver after pause(): that queues behind what waits already.
      this.#waiting = Buffer.concat([this.#waiting, chunk]);
      return false;
    }
    this.#consume(this.#carry ? this.#join(this.#carry, chunk) : chunk);
    return this.#waiting === undefined;
  };

  /** Gives the bytes that follow what was carried over; a row whose header was cut costs no copy of the whole chunk. */
  #join(carry: Buffer, chunk: Buffer): Buffer {
    this.#carry = undefined;
    const missing = HEADER_BYTES - carry.length;
    if (carry[0] !== COPY_DATA || missing > chunk.length) return Buffer.concat([carry, chunk]);
    const length = Buffer.concat([carry, chunk.subarray(0, missing)]).readUInt32BE(1) - 4;
    if (!this.#room(length)) return Buffer.concat([carry, chunk]);
    this.#beginRow(length);
    return chunk.subarray(missing);
  }

  /** Splits bytes into messages; keeps what is incomplete for the next call. */
  #consume(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      at = this.#takeWholeRows(bytes, at);
      if (this.#rowBytesLeft > 0) {
        at = this.#takeRowBytes(bytes, at);
        if (at < 0) return;
        continue;
      }
      if (bytes.length - at < HEADER_BYTES) break;
      const length = bytes.readUInt32BE(at + 1) - 4;
      if (bytes[at] === COPY_DATA) {
        if (!this.#room(length)) {
          this.#wait(bytes.subarray(at));
          return;
        }
        at += HEADER_BYTES;
        this.#beginRow(length);
        continue;
      }
      const end = at + HEADER_BYTES + length;
      if (end > bytes.length) break;
      const code = bytes[at];
      if (code === READY_FOR_QUERY) {
        this.#handBack(bytes.subarray(at));
        return;
      }
      // `pg` knows the start of a COPY TO only as something that it did not expect.
      if (code !== COPY_OUT_RESPONSE && code !== COPY_DONE) this.#parse?.(Buffer.from(bytes.subarray(at, end)));
      at = end;
    }
    this.#carry = at < bytes.length ? Buffer.from(bytes.subarray(at)) : undefined;
  }

  /** Copies the rows that are complete and fit into the open batch, which is nearly all; gives the new position. */
  #takeWholeRows(bytes: Buffer, start: number): number {
    const fill = this.#fill;
    if (!fill || this.#rowBytesLeft > 0) return start;
    const from = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const to = new DataView(fill.buffer, fill.byteOffset, fill.length);
    let at = start;
    let filled = this.#filled;
    let rows = 0;
    while (bytes.length - at >= HEADER_BYTES && bytes[at] === COPY_DATA) {
      const length = from.getUint32(at + 1) - 4;
      const end = at + HEADER_BYTES + length;
      if (end > bytes.length || filled + length > fill.length) break;
      if (length <= SHORT_ROW_BYTES) copyWords(from, at + HEADER_BYTES, to, filled, length);
      else bytes.copy(fill, filled, at + HEADER_BYTES, end);
      filled += length;
      rows += 1;
      at = end;
    }
    this.#filled = filled;
    if (this.#options.countMessages) {
      this.#rows += rows;
      this.#totalRows += rows;
    }
    return at;
  }

  /** Makes sure that a row of this many bytes can begin: whole in the open batch, or at the start of the next one. */
  #room(length: number): boolean {
    if (this.#fill && this.#filled > 0 && this.#filled + length > this.#fill.length) this.#seal();
    return this.#open();
  }

  #open(): boolean {
    if (this.#fill) return true;
    const reused = this.#free.pop();
    if (!reused && this.#allocated === 2) return false;
    if (!reused) this.#allocated += 1;
    this.#fill = reused ?? sharedBuffer(this.#options.batchBytes);
    return true;
  }

  /** Copies what there is of the current row; gives the new position, or -1 when both buffers are full. */
  #takeRowBytes(bytes: Buffer, at: number): number {
    if (!this.#open()) {
      this.#wait(bytes.subarray(at));
      return -1;
    }
    const fill = this.#fill as Buffer;
    const count = Math.min(this.#rowBytesLeft, bytes.length - at, fill.length - this.#filled);
    bytes.copy(fill, this.#filled, at, at + count);
    this.#filled += count;
    this.#rowBytesLeft -= count;
    if (this.#rowBytesLeft === 0) this.#endRow();
    if (this.#filled === fill.length) this.#seal();
    return at + count;
  }

  #beginRow(length: number): void {
    this.#rowBytesLeft = length;
    if (length === 0) this.#endRow();
  }

  #endRow(): void {
    if (!this.#options.countMessages) return;
    this.#rows += 1;
    this.#totalRows += 1;
  }

  #seal(): void {
    const buffer = this.#fill as Buffer;
    this.#ready.push({ buffer, bytes: this.#filled, rows: this.#rows });
    this.#fill = undefined;
    this.#filled = 0;
    this.#rows = 0;
    this.#wake?.();
  }

  /** The open batch may be gone already when the row count of a binary COPY arrives: then it comes with no bytes. */
  #sealLast(): void {
    this.#fill ??= Buffer.alloc(0);
    this.#seal();
  }

  #wait(rest: Buffer): void {
    this.#waiting = rest;
    if (!(this.#socket instanceof CopySocket)) this.#socket?.pause();
  }

  /** Ends the take-over: the client's parser gets ReadyForQuery and all that follows. */
  #handBack(rest: Buffer): void {
    clearInterval(this.#watchdog);
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket || !this.#parse) return;
    if (socket instanceof CopySocket) {
      socket.takeOver(undefined);
    } else {
      socket.removeListener("data", this.#onData);
      socket.on("data", this.#parse);
    }
    this.#parse(Buffer.from(rest));
    // It may have been paused for want of a free buffer when these last bytes arrived.
    socket.resume();
  }

  #checkStall(): void {
    const waitsForServer = this.#waiting === undefined;
    if (!waitsForServer) this.#lastProgressAt = performance.now();
    if (performance.now() - this.#lastProgressAt < this.#options.stallTimeoutMs) return;
    const seconds = Math.round(this.#options.stallTimeoutMs / 1000);
    this.#fail(Object.assign(new Error(`no data arrived for ${seconds} s`), { code: "stalled" }));
    this.#options.destroy();
  }

  // What `pg` calls on its active query.
  handleCommandComplete(message: { readonly text: string }): void {
    const rows = Number(/^COPY (\d+)$/.exec(message.text)?.[1] ?? Number.NaN);
    if (!this.#options.countMessages) {
      this.#rows = rows;
    } else if (rows !== this.#totalRows) {
      this.#fail(new Error(`the server sent ${formatPlural(this.#totalRows, "row")} but says ${rows}`));
      return;
    }
    if (this.#filled > 0 || this.#rows > 0) this.#sealLast();
  }

  handleError(error: unknown): void {
    this.#fail(error);
  }

  handleReadyForQuery(): void {
    this.#done = true;
    this.#wake?.();
  }

  #fail(error: unknown): void {
    this.#error ??= error;
    this.#done = true;
    clearInterval(this.#watchdog);
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<RowBatch> {
    try {
      for (;;) {
        if (this.#error !== undefined) throw this.#options.translate(this.#error);
        const next = this.#ready.shift();
        if (next) {
          yield { bytes: next.buffer.subarray(0, next.bytes), rows: next.rows };
          this.#recycle(next.buffer);
          continue;
        }
        if (this.#done) {
          if (this.#fill) this.#free.push(this.#fill);
          this.#options.buffers.push(...this.#free);
          return;
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    } finally {
      // Left early: a COPY cannot be stopped in an orderly way without reading all of it.
      if (!this.#done) this.#options.destroy();
      clearInterval(this.#watchdog);
    }
  }

  #recycle(buffer: Buffer): void {
    if (buffer.length > 0) this.#free.push(buffer);
    const waiting = this.#waiting;
    if (!waiting) return;
    this.#waiting = undefined;
    this.#consume(waiting);
    if (!this.#waiting) this.#socket?.resume();
  }
}

function copyWords(from: DataView, start: number, to: DataView, target: number, length: number): void {
  let done = 0;
  for (; done + 8 <= length; done += 8) to.setBigUint64(target + done, from.getBigUint64(start + done));
  for (; done < length; done += 1) to.setUint8(target + done, from.getUint8(start + done));
}

/** Memory that a compressing thread can read where it is. */
function sharedBuffer(bytes: number): Buffer {
  return Buffer.from(new SharedArrayBuffer(bytes));
}
