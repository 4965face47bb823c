import { createServer, request } from "node:http";
import { pipeline } from "node:stream/promises";
import { expect, test } from "vitest";
import { sendBody } from "../../src/destinations/object-store.ts";

const signal = new AbortController().signal;
const options = { size: 3_000_000, object: "there/object", signal };

async function* wholeBody() {
  for (let part = 0; part < 30; part++) yield Buffer.alloc(100_000);
}

test("a body whose line is cut fails with what the request says, not as if its source had failed", async () => {
  const answered = new Error("503 SlowDown");

  const sending = sendBody(wholeBody(), options, async (body) => {
    // What an HTTP client does when the socket breaks while it writes.
    const cut = Object.assign(new Error("write EPIPE"), { code: "EPIPE" });
    if (!Buffer.isBuffer(body)) body.destroy(cut);
    await new Promise((resolve) => setTimeout(resolve, 10));
    throw answered;
  });

  await expect(sending).rejects.toBe(answered);
});

test("a cut line does not stop the request before its answer is read", async () => {
  const server = createServer((incoming, response) => {
    incoming.once("data", () => {
      response.writeHead(403, { Connection: "close" }).end("denied");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };

  try {
    const status = await sendBody(wholeBody(), options, (body, cut) => {
      const outgoing = request({ port, host: "127.0.0.1", method: "PUT", signal: cut });
      const answer = new Promise<number | undefined>((resolve, reject) => {
        outgoing.once("response", (response) => resolve(response.resume().statusCode));
        outgoing.once("error", reject);
      });
      outgoing.once("response", () => Buffer.isBuffer(body) || body.destroy(new Error("the answer came early")));
      if (!Buffer.isBuffer(body)) pipeline(body, outgoing).catch(() => undefined);
      return answer;
    });

    expect(status).toBe(403);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

test("a source that fails cuts the request and is what the sending fails with", async () => {
  const broken = new Error("the spool is gone");
  async function* source() {
    yield Buffer.alloc(100_000);
    throw broken;
  }

  const sending = sendBody(source(), options, async (body, cut) => {
    if (!Buffer.isBuffer(body)) body.resume();
    await new Promise((_, reject) => cut.addEventListener("abort", () => reject(new Error("the request was cut"))));
  });

  await expect(sending).rejects.toBe(broken);
});

test("a source is told to stop when the request ends before it", async () => {
  let isStopped = false;
  async function* source() {
    try {
      yield* wholeBody();
    } finally {
      isStopped = true;
    }
  }

  const sending = sendBody(source(), options, async (body) => {
    if (!Buffer.isBuffer(body)) body.once("data", () => body.pause());
    await new Promise((resolve) => setTimeout(resolve, 10));
    throw new Error("no");
  });

  await expect(sending).rejects.toThrow("no");
  await expect.poll(() => isStopped).toBe(true);
});
