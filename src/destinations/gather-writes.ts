import type { Socket } from "node:net";

type Done = (error?: Error | null) => void;

/**
 * Sends what is written to a connected socket in one turn of the event loop together. The SSH library writes each packet in three
 * pieces; without Nagle's algorithm each of them would be a system call and a packet of the network of its own.
 */
export function gatherWrites(socket: Socket): void {
  // `connect` of a socket resets the method of a subclass.
  const write = socket.write.bind(socket);
  let isGathering = false;
  socket.write = (bytes: Uint8Array | string, encoding?: BufferEncoding | Done, done?: Done): boolean => {
    if (!isGathering) {
      isGathering = true;
      socket.cork();
      process.nextTick(() => {
        isGathering = false;
        socket.uncork();
      });
    }
    return typeof encoding === "function" ? write(bytes, encoding) : write(bytes, encoding, done);
  };
}
