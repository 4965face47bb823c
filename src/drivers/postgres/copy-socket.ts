import { Socket } from "node:net";

/** One read takes all that has piled up while the process was busy, instead of 64 KiB and a new buffer each time. */
const READ_BYTES = 512 * 1024;

/** Takes bytes that are valid until it returns true; after false they stay valid, and no more come, until `resume()`. */
export type BytesTaker = (bytes: Buffer) => boolean;

/**
 * A TCP or Unix socket that reads into one buffer of its own, without an allocation per read. Its bytes go to `data`
 * listeners as copies, as everybody expects, or to the one taker where they lie.
 */
export class CopySocket extends Socket {
  #taker: BytesTaker | undefined;

  constructor() {
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    const options = {
      onread: {
        buffer,
        callback: (size: number) => this.#deliver(buffer.subarray(0, size)),
      },
    };
    super(options);
  }

  /** Hands all bytes to this function from now on; undefined: back to the listeners. */
  takeOver(taker: BytesTaker | undefined): void {
    this.#taker = taker;
  }

  /** False stops the reading, and so nothing overwrites the buffer. */
  #deliver(bytes: Buffer): boolean {
    if (this.#taker) return this.#taker(bytes);
    this.emit("data", Buffer.from(bytes));
    return true;
  }
}
