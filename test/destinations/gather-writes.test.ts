import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { expect, test } from "vitest";
import { gatherWrites } from "../../src/destinations/gather-writes.ts";

/** A connected socket, and what arrives at the other end when it was ended. */
async function socketPair(): Promise<{ readonly socket: Socket; readonly received: Promise<string> }> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  const received = once(server, "connection").then(async ([other]: Socket[]) => {
    let text = "";
    for await (const bytes of other ?? []) text += String(bytes);
    server.close();
    return text;
  });
  const socket = connect(address.port, "127.0.0.1");
  await once(socket, "connect");
  gatherWrites(socket);
  return { socket, received };
}

test("what is written in one turn waits for its end, and goes out in its order", async () => {
  const { socket, received } = await socketPair();

  for (const text of ["one ", "two ", "three "]) socket.write(text);
  const waiting = socket.writableLength;
  await new Promise<void>((resolve) => process.nextTick(resolve));
  const left = socket.writableLength;
  socket.end("end");

  expect([waiting, left]).toEqual([14, 0]);
  expect(await received).toBe("one two three end");
});

test("who writes hears when it was sent, whatever the encoding, and when it cannot be", async () => {
  const { socket, received } = await socketPair();

  await new Promise((resolve) => socket.write("61", "hex", resolve));
  await new Promise((resolve) => socket.write("b", resolve));
  socket.end();
  socket.on("error", () => undefined);
  const error = await new Promise((resolve) => socket.write("c", resolve));

  expect(await received).toBe("ab");
  expect(error).toBeInstanceOf(Error);
});
