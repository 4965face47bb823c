import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Destination } from "../../src/destinations/destination.ts";
import { openResilientDestination } from "../../src/destinations/open-resilient-destination.ts";
import { type SshServer, startSshServer, withPrograms } from "../support/services.ts";
import { type StallingProxy, startStallingProxy } from "../support/stalling-proxy.ts";
import { listKeys, put, readAll, sliced } from "./contract.ts";

const signal = new AbortController().signal;

withPrograms(["sshd", "ssh-keygen"], () => {
  let server: SshServer;
  let proxy: StallingProxy;
  let there: Destination;
  beforeAll(async () => {
    server = await startSshServer();
    proxy = await startStallingProxy(server.port);
    there = await openResilientDestination(
      {
        type: "sftp",
        host: "127.0.0.1",
        port: proxy.port,
        path: join(server.folder, "data/resilient"),
        user: server.user,
        privateKey: server.privateKey,
        hostKey: server.hostKey,
      },
      { retry: { attempts: 4, failedAttempts: 2, firstDelayMs: 20, maxDelayMs: 100, patienceMs: 60_000 }, signal },
    );
  });
  afterAll(async () => {
    await there?.[Symbol.asyncDispose]();
    await proxy?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });

  const bytes = randomBytes(6_000_000);

  test("a line that is cut in the middle of a put costs nothing but a second try", async () => {
    let opened = 0;
    const open = async function* () {
      opened++;
      for (let start = 0; start < bytes.length; start += 1_000_000) {
        if (opened === 1 && start === 3_000_000) proxy.cut();
        yield bytes.subarray(start, start + 1_000_000);
      }
    };

    await there.put("put", open, { size: bytes.length, exclusive: true, signal });

    expect(opened).toBe(2);
    expect((await readAll(there, "put")).equals(bytes)).toBe(true);
  });

  test("a line that is cut in the middle of a get goes on at the byte that was reached", async () => {
    await there.put("get", sliced(bytes, 1_000_000), { size: bytes.length, signal });
    const parts: Uint8Array[] = [];
    let cuts = 0;

    for await (const part of there.get("get", { size: bytes.length, signal })) {
      parts.push(Buffer.from(part));
      const seen = parts.reduce((sum, one) => sum + one.length, 0);
      if (seen > 2_000_000 * (cuts + 1) && cuts < 2) {
        cuts++;
        proxy.cut();
      }
    }

    expect(cuts).toBe(2);
    expect(Buffer.concat(parts).equals(bytes)).toBe(true);
  });

  test("a line that is cut in the middle of a listing gives every object once", async () => {
    const names = Array.from({ length: 250 }, (_, index) => `list/${index}`);
    await Promise.all(names.map((name) => put(there, name, "")));
    const seen: string[] = [];

    for await (const { key } of there.list("list/", { signal })) {
      seen.push(key);
      if (seen.length === 50) proxy.cut();
    }

    expect(seen.toSorted()).toEqual(names.toSorted());
    expect(await listKeys(there, "list/")).toHaveLength(250);
  });
});
