import { readdir, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { SftpSettings } from "../../src/destinations/destination-settings.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { type SshServer, startSshServer, withPrograms } from "../support/services.ts";
import { startStallingProxy } from "../support/stalling-proxy.ts";
import {
  describeDestination,
  expectReason,
  failureOf,
  fresh,
  leaveFileIn,
  listKeys,
  put,
  readText,
  sliced,
} from "./contract.ts";

const signal = new AbortController().signal;

withPrograms(["sshd", "ssh-keygen"], () => {
  let server: SshServer;
  beforeAll(async () => {
    server = await startSshServer();
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  const settingsOf = (path: string, changes: Partial<SftpSettings> = {}): SftpSettings => ({
    type: "sftp",
    host: "127.0.0.1",
    port: server.port,
    path: join(server.folder, "data", path),
    user: server.user,
    privateKey: server.privateKey,
    hostKey: server.hostKey,
    ...changes,
  });
  const openAt = (path: string, changes?: Partial<SftpSettings>) =>
    openDestination(settingsOf(path, changes), { signal });

  describeDestination(
    "sftp",
    async () => {
      const destination = await openAt("contract/deep");
      return {
        destination,
        another: () => openAt("contract/deep"),
        rawNames: () => readdir(join(server.folder, "data/contract/deep"), { recursive: true }),
        [Symbol.asyncDispose]: () => destination[Symbol.asyncDispose](),
      };
    },
    {
      manyObjects: 300,
      leaveFile: (name, ageMs) => leaveFileIn(join(server.folder, "data/contract/deep"), name, ageMs),
    },
  );

  describe("an SFTP destination", () => {
    test("refuses a server that shows another host key than the pinned one, and names it", async () => {
      const failure = await failureOf(openAt("x", { hostKey: "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }));

      expectReason(failure, "denied");
      expect(failure.message).toContain(server.hostKey);
    });

    test("says access denied for a user whom the server does not accept", async () => {
      const failure = await failureOf(openAt("x", { privateKey: undefined, password: "canary-password" }));

      expectReason(failure, "denied");
      expect(`${failure.message} ${failure.hint} ${String(failure.cause)}`).not.toContain("canary-password");
    });

    test("says so when the private key is none, without showing it", async () => {
      const failure = await failureOf(openAt("x", { privateKey: "canary-key" }));

      expectReason(failure, "denied");
      expect(failure.message).not.toContain("canary-key");
    });

    test("says unreachable when no server listens", async () => {
      expectReason(await failureOf(openAt("x", { port: 1 })), "unreachable");
    });

    test("says unreachable when the line is cut in the middle of a put, and connects again for the next", async () => {
      await using proxy = await startStallingProxy(server.port);
      await using there = await openAt("cut", { port: proxy.port });
      const key = fresh();
      const open = async function* () {
        yield Buffer.alloc(100_000);
        proxy.cut();
        yield Buffer.alloc(100_000);
      };

      const failure = await failureOf(there.put(key, open, { size: 200_000, signal }));

      expectReason(failure, "unreachable");
      expect(await there.stat(key, { signal })).toBeUndefined();
      await put(there, key, "again");
      expect(await readText(there, key)).toBe("again");
    });

    test("can be aborted while the server says nothing", async () => {
      await using proxy = await startStallingProxy(server.port);
      await using there = await openAt("stall", { port: proxy.port });
      const stop = new AbortController();
      proxy.stall();

      const asked = there.stat("object", { signal: stop.signal }).catch((error) => error);
      setTimeout(() => stop.abort(), 50);

      expect(await asked).toBe(stop.signal.reason);
    });

    test("follows no planted symbolic link to a folder", async () => {
      await using there = await openAt("planted");
      await put(there, "probe", "x");
      await symlink("/tmp", join(server.folder, "data/planted/job"));

      expectReason(await failureOf(put(there, "job/object", "x")), "denied");
      expect(await listKeys(there, "")).toEqual(["probe"]);
      await rm(join(server.folder, "data/planted/job"));
    });

    test("moves 32 MiB there and back in a few seconds", async () => {
      await using there = await openAt("fast");
      const bytes = Buffer.alloc(32 * 1024 * 1024, 7);

      const began = Date.now();
      await there.put("object", sliced(bytes, 1024 * 1024), { size: bytes.length, signal });
      let size = 0;
      for await (const part of there.get("object", { signal })) size += part.length;

      expect(size).toBe(bytes.length);
      expect(Date.now() - began).toBeLessThan(15_000);
    });
  });
});
