import { Socket } from "node:net";

/** One read takes all that has piled up while the process was busy, instead of 64 KiB and a new buffer each time. */
const READ_BYTES = 512 * 1024;

/**
 * A TCP or Unix socket that reads into one buffer of its own, without an allocation per read. Its bytes go to `data`
 * listeners as copies, as everybody expects, or to the one taker, who must be done with them when it returns.
 */
export class CopySocket extends Socket {
  #taker: ((bytes: Buffer) => void) | undefined;

  constructor() {
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    const options = {
      onread: {
        buffer,
        callback: (size: number) => {
          this.#deliver(buffer.subarray(0, size));
          return true;
        },
      },
    };
    super(options);
  }

  /** Hands all bytes to this function from now on; undefined: back to the listeners. */
  takeOver(taker: ((bytes: Buffer) => void) | undefined): void {
    this.#taker = taker;
  }

  #deliver(bytes: Buffer): void {
    if (this.#taker) this.#taker(bytes);
    else this.emit("data", Buffer.from(bytes));
  }
}
