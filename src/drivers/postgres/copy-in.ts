import type { Socket } from "node:net";

const COPY_DATA = 0x64;
/** Large enough that a message costs nothing, small enough for the server's own buffer. */
const MESSAGE_BYTES = 256 * 1024;

interface PgConnection {
  readonly stream: Socket;
  query(text: string): void;
  endCopyFrom(): void;
  sendCopyFail(message: string): void;
}

/** A query of `pg` that feeds `COPY … FROM STDIN`, at the pace at which the server takes the bytes. */
export class CopyInQuery {
  readonly #text: string;
  readonly #stallTimeoutMs: number;
  #connection: PgConnection | undefined;
  readonly #started = Promise.withResolvers<void>();
  readonly #finished = Promise.withResolvers<number>();
  #rows = 0;
  #failed = false;

  constructor(text: string, stallTimeoutMs: number) {
    this.#text = text;
    this.#stallTimeoutMs = stallTimeoutMs;
    this.#started.promise.catch(() => undefined);
    this.#finished.promise.catch(() => undefined);
  }

  /**
   * Sends all bytes and gives the number of rows that the server stored. When reading them fails, the server is told
   * to abandon the COPY, and the reader's error is thrown. A chunk may be reused once the next one is asked for;
   * `release` takes those that are sent and not looked at any more.
   */
  async feed(bytes: AsyncIterable<Uint8Array>, release?: (chunk: Uint8Array) => void): Promise<number> {
    await this.#started.promise;
    const connection = this.#connection as PgConnection;
    try {
      for await (const chunk of bytes) {
        if (this.#failed) break;
        if (await this.#write(connection.stream, chunk)) release?.(chunk);
      }
    } catch (error) {
      if (!this.#failed) {
        connection.sendCopyFail("the reader of the rows failed");
        await this.#finished.promise.catch(() => undefined);
        throw error;
      }
    }
    if (!this.#failed) connection.endCopyFrom();
    return this.#finished.promise;
  }

  /**
   * Resolves when the operating system has taken the bytes: from then on the buffer may be overwritten. Gives false when it may
   * still look at them, since nothing more is sent.
   */
  async #write(socket: Socket, bytes: Uint8Array): Promise<boolean> {
    const written = Promise.withResolvers<boolean>();
    const ended = (error?: Error | null) => written.resolve(!error);
    socket.cork();
    for (let at = 0; at < bytes.length; at += MESSAGE_BYTES) {
      const part = bytes.subarray(at, at + MESSAGE_BYTES);
      const header = Buffer.allocUnsafe(5);
      header[0] = COPY_DATA;
      header.writeUInt32BE(part.length + 4, 1);
      socket.write(header);
      const last = at + MESSAGE_BYTES >= bytes.length;
      socket.write(part, last ? ended : undefined);
    }
    socket.uncork();
    if (bytes.length === 0) return true;
    const stalled = setTimeout(() => {
      const seconds = Math.round(this.#stallTimeoutMs / 1000);
      const error = Object.assign(new Error(`the server took no data for ${seconds} s`), { code: "stalled" });
      this.handleError(error);
      socket.destroy();
    }, this.#stallTimeoutMs);
    // A failed COPY or a closed socket never calls back.
    const failed = this.#finished.promise.then(
      () => false,
      () => false,
    );
    const isTaken = await Promise.race([written.promise, failed]);
    clearTimeout(stalled);
    return isTaken;
  }

  // What `pg` calls on its active query.
  submit(connection: PgConnection): void {
    this.#connection = connection;
    connection.query(this.#text);
  }

  handleCopyInResponse(): void {
    this.#started.resolve();
  }

  handleCommandComplete(message: { readonly text: string }): void {
    this.#rows = Number(/(\d+)$/.exec(message.text)?.[1] ?? 0);
  }

  handleError(error: unknown): void {
    this.#failed = true;
    this.#started.reject(error);
    this.#finished.reject(error);
  }

  handleReadyForQuery(): void {
    this.#finished.resolve(this.#rows);
  }
}
