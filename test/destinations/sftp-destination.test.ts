import { randomBytes } from "node:crypto";
import { chmod, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { SFTPWrapper } from "ssh2";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { SftpSettings } from "../../src/destinations/destination-settings.ts";
import { SftpConnection, type SftpDone } from "../../src/destinations/sftp-connection.ts";
import { SftpFiles } from "../../src/destinations/sftp-files.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { type SshServer, startSshServer, withPrograms } from "../support/services.ts";
import { startDelayingProxy } from "../support/delaying-proxy.ts";
import { startStallingProxy } from "../support/stalling-proxy.ts";
import {
  describeDestination,
  expectReason,
  failureOf,
  fresh,
  leaveFileIn,
  listKeys,
  put,
  readAll,
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
      expect(failure).toMatchObject({ hint: expect.stringContaining("try again later") });
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

    test("keeps a line with latency busy in both directions, whatever the size of the parts", async () => {
      await using proxy = await startDelayingProxy(server.port, 25);
      await using there = await openAt("far", { port: proxy.port });
      const bytes = randomBytes(8 * 1024 * 1024);

      const began = performance.now();
      await there.put("object", sliced(bytes, 64 * 1024), { size: bytes.length, signal });
      const written = performance.now() - began;
      const read = await readAll(there, "object");
      const total = performance.now() - began;

      expect(read.equals(bytes)).toBe(true);
      // One part per round trip would take 128 of 50 ms.
      expect(written).toBeLessThan(5000);
      expect(total - written).toBeLessThan(5000);
    });

    test("is unreachable when its whole folder is gone, instead of empty; opening makes the folder anew", async () => {
      const folder = join(server.folder, "data/lost");
      await using there = await openAt("lost");
      await put(there, "job/object", "x");
      await rename(folder, `${folder}.away`);

      expectReason(await failureOf(listKeys(there, "")), "unreachable");
      expectReason(await failureOf(listKeys(there, "job/")), "unreachable");
      expectReason(
        await failureOf(Promise.resolve(there.removeUnfinished?.("job/", { olderThanMs: 0, signal }))),
        "unreachable",
      );
      expectReason(await failureOf(put(there, "job/other", "x")), "unreachable");
      await rename(`${folder}.away`, folder);
      expect(await listKeys(there, "job/")).toEqual(["job/object"]);
      expect(await listKeys(there, "other/")).toEqual([]);
      await using fresh = await openAt("never/seen");
      expect(await listKeys(fresh, "job/")).toEqual([]);
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

  describe("an SFTP server that cannot rename to a name that is taken", () => {
    let plain: SshServer;
    beforeAll(async () => {
      plain = await startSshServer({ without: "posix-rename" });
    });
    afterAll(() => plain?.[Symbol.asyncDispose]());

    const settingsAt = (path: string, port = plain.port) =>
      settingsOf("", {
        port,
        path: join(plain.folder, "data", path),
        privateKey: plain.privateKey,
        hostKey: plain.hostKey,
      });

    test("replaces objects all the same and leaves nothing beside them", async () => {
      await using there = await openDestination(settingsAt("plain"), { signal });
      await put(there, "object", "old");

      await put(there, "object", "new");

      expect(await readText(there, "object")).toBe("new");
      expect(await readdir(join(plain.folder, "data/plain"))).toEqual(["object"]);
    });

    // The new file to the taken name, the old one aside, the new one to the free name, and what remains.
    test.each([1, 2, 3])("keeps the old object or the new one when the line is cut at rename %i", async (cutAt) => {
      const folder = join(plain.folder, "data", `cut${cutAt}`);
      await mkdir(folder, { mode: 0o777 });
      await chmod(folder, 0o777);
      await writeFile(join(folder, "object"), "old");
      await writeFile(join(folder, "complete"), "new");
      await using proxy = await startStallingProxy(plain.port);
      await using connection = new SftpConnection(settingsAt(`cut${cutAt}`, proxy.port), "plain");
      let renames = 0;
      const cutting = (sftp: SFTPWrapper) =>
        new Proxy(sftp, {
          get(target, name) {
            if (name === "rename" && ++renames === cutAt) proxy.cut();
            const value: unknown = Reflect.get(target, name);
            return typeof value === "function" ? value.bind(target) : value;
          },
        });
      const files = new SftpFiles({
        call: (limit: AbortSignal, request: (sftp: SFTPWrapper, done: SftpDone<unknown>) => void) =>
          connection.call(limit, (sftp, done) => request(cutting(sftp), done)),
      } as unknown as SftpConnection);

      const failure = await files
        .replace(`${folder}/complete`, `${folder}/object`, signal)
        .catch((error: unknown) => error);

      expect(failure).toBeInstanceOf(Error);
      expect(await readFile(join(folder, "object"), "utf8")).toBe("old");
    });
  });
});
