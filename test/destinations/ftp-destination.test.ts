import { execFileSync } from "node:child_process";
import { chmod, mkdir, readdir, readFile, rm, symlink, truncate, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { FtpSettings } from "../../src/destinations/destination-settings.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { type FtpServer, startFtpServer, withPrograms } from "../support/services.ts";
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

withPrograms(["proftpd", "openssl"], () => {
  const servers = new Map<string, FtpServer>();
  beforeAll(async () => {
    for (const tls of ["off", "explicit", "implicit"] as const) servers.set(tls, await startFtpServer(tls));
  });
  afterAll(async () => {
    for (const server of servers.values()) await server[Symbol.asyncDispose]();
  });

  const serverOf = (tls: FtpSettings["tls"] = "explicit"): FtpServer => {
    const server = servers.get(tls);
    if (server === undefined) throw new Error("it did not start");
    return server;
  };
  const openAt = (path: string, tls: FtpSettings["tls"], changes: Partial<FtpSettings> = {}) => {
    const { port, user, password, ca } = serverOf(tls);
    const certificate = tls === "off" ? {} : { ca };
    const settings: FtpSettings = { type: "ftp", host: "127.0.0.1", port, path, user, password, tls, ...certificate };
    return openDestination({ ...settings, ...changes }, { signal });
  };

  describe.each(["off", "explicit", "implicit"] as const)("tls: %s", (tls) => {
    const folder = () => join(serverOf(tls).folder, "data/contract/deep");
    describeDestination(
      `ftp, tls ${tls},`,
      async () => {
        const destination = await openAt(folder(), tls);
        return {
          destination,
          another: () => openAt(folder(), tls),
          rawNames: () => readdir(folder(), { recursive: true }),
          [Symbol.asyncDispose]: () => destination[Symbol.asyncDispose](),
        };
      },
      { leaveFile: (name, ageMs) => leaveFileIn(folder(), name, ageMs) },
    );
  });

  describe("without MLSD", () => {
    let server: FtpServer;
    beforeAll(async () => {
      server = await startFtpServer("off", ["FactsAdvertise off"]);
    });
    afterAll(() => server?.[Symbol.asyncDispose]());
    const folder = () => join(server.folder, "data/contract");

    describeDestination(
      "ftp, without MLSD,",
      async () => {
        const destination = await openOn(server, folder());
        return {
          destination,
          another: () => openOn(server, folder()),
          rawNames: () => readdir(folder(), { recursive: true }),
          [Symbol.asyncDispose]: () => destination[Symbol.asyncDispose](),
        };
      },
      { leaveFile: (name, ageMs) => leaveFileIn(folder(), name, ageMs) },
    );
  });

  describe("an FTP destination", () => {
    test("says that user or password are not accepted, without showing the password", async () => {
      const failure = await failureOf(openAt("x", "explicit", { password: "canary-wrong-password" }));

      expectReason(failure, "denied");
      expect(failure.hint).toBe("Check user and password.");
      expect(inspect(failure, { depth: 9 })).not.toContain("canary-wrong-password");
    });

    test.each(["explicit", "implicit"] as const)("trusts no unknown certificate and names `ca` (%s)", async (tls) => {
      const failure = await failureOf(openAt("x", tls, { ca: undefined }));

      expectReason(failure, "denied");
      expect(failure.message).toContain("certificate is not trusted");
      expect(failure.hint).toContain("ca");
    });

    test("trusts no certificate of another host name", async () => {
      const failure = await failureOf(openAt("x", "explicit", { host: "localhost" }));

      expectReason(failure, "denied");
      expect(failure.message).toContain("certificate is not trusted");
    });

    test("speaks TLS unless it is told not to", async () => {
      const failure = await failureOf(openAt("x", "off", { tls: undefined }));

      expectReason(failure, "denied");
      expect(failure.message).toContain("offers no TLS");
    });

    test("says that the server wants TLS", async () => {
      const failure = await failureOf(openAt("x", "explicit", { tls: "off" }));

      expectReason(failure, "denied");
      expect(failure.message).toContain("wants TLS");
    });

    test("says that the server begins TLS otherwise", async () => {
      const failure = await failureOf(openAt("x", "explicit", { tls: "implicit" }));

      expectReason(failure, "failed");
      expect(failure.hint).toContain("explicit");
    });

    test("says unreachable when no server listens", async () => {
      expectReason(await failureOf(openAt("x", "off", { port: 1 })), "unreachable");
    });

    test("refuses a password of several lines, which would become commands", async () => {
      const failure = await failureOf(openAt("x", "off", { password: "canary\r\nDELE x" }));

      expectReason(failure, "denied");
      expect(inspect(failure, { depth: 9 })).not.toContain("canary");
    });

    test("takes a path without a leading slash from the user's home", async () => {
      await using there = await openAt("home/deep", "off");

      await put(there, "object", "x");

      expect(await readdir(join(serverOf("off").folder, "data/home/deep"))).toEqual(["object"]);
    });

    test("says unreachable when the line is cut in the middle of a put, and connects again for the next", async () => {
      await using proxy = await startStallingProxy(serverOf("explicit").port);
      await using there = await openAt("cut", "explicit", { port: proxy.port });
      const key = fresh();
      const open = async function* () {
        yield Buffer.alloc(100_000);
        proxy.cut();
        yield Buffer.alloc(100_000);
      };

      const failure = await failureOf(there.put(key, open, { size: 200_000, signal }));

      expectReason(failure, "unreachable");
      expect(failure).toMatchObject({ hint: expect.stringContaining("try again later") });
      expect(await readdir(join(serverOf("explicit").folder, "data/cut"))).toEqual([]);
      await put(there, key, "again");
      expect(await readText(there, key)).toBe("again");
    });

    test("leaves no visible object when the server is killed in the middle of a put", async () => {
      await using server = await startFtpServer("explicit");
      await using there = await openOn(server, "killed");
      const open = async function* () {
        yield Buffer.alloc(3_000_000);
        await server.kill();
        yield Buffer.alloc(3_000_000);
      };

      const failure = await failureOf(there.put("job/object", open, { size: 6_000_000, signal }));

      expectReason(failure, "unreachable");
      const left = await readdir(join(server.folder, "data/killed/job"));
      expect(left.filter((name) => !name.endsWith(".in-progress"))).toEqual([]);
      expectReason(await failureOf(listKeys(there, "")), "unreachable");
    });

    test("never takes an object for whole when the server is killed in the middle of a get", async () => {
      await using server = await startFtpServer("off");
      await using there = await openOn(server, "killed");
      const bytes = Buffer.alloc(40_000_000, 1);
      await there.put("object", sliced(bytes, 1_000_000), { size: bytes.length, signal });
      let seen = 0;

      const reading = (async () => {
        for await (const part of there.get("object", { signal })) {
          if (seen === 0) await server.kill();
          seen += part.length;
        }
      })();

      expectReason(await failureOf(reading), "unreachable");
      expect(seen).toBeLessThan(bytes.length);
    });

    test("finds out by its size that the server kept less than it was sent", async () => {
      await using there = await openAt("short", "off");
      const folder = join(serverOf("off").folder, "data/short");
      const open = async function* () {
        yield Buffer.alloc(100_000);
        const name = await untilFileIn(folder);
        await rm(join(folder, name));
        await writeFile(join(folder, name), "short", { mode: 0o666 });
        yield Buffer.alloc(100_000);
      };

      const failure = await failureOf(there.put("object", open, { size: 200_000, signal }));

      expectReason(failure, "failed");
      expect(failure.message).toContain("has 5 of 200000 bytes");
      expect(await readdir(folder)).toEqual([]);
    });

    test("reads one hundredth of an object without moving much more of it", async () => {
      await using there = await openAt("ranges", "off");
      const [folder, size] = [serverOf("off").folder, 1_000_000_000];
      await put(there, "other", "x");
      await writeFile(join(folder, "data/ranges/object"), "");
      await truncate(join(folder, "data/ranges/object"), size);

      let seen = 0;
      const range = { start: size / 2, end: size / 2 + size / 100 };
      for await (const part of there.get("object", { range, signal })) seen += part.length;

      expect(seen).toBe(size / 100);
      const log = join(folder, "run/transfer.log");
      const moved = async () => Number(/(\d+) \S*\/ranges\/object b _ o/.exec(await readFile(log, "utf8"))?.[1] ?? 0);
      await expect.poll(moved).toBeGreaterThan(0);
      // What was in the system's buffers when the range ended was moved too.
      expect(await moved()).toBeLessThan((1.6 * size) / 100);
    });

    test("can be aborted while the server says nothing", async () => {
      await using proxy = await startStallingProxy(serverOf("off").port);
      await using there = await openAt("stall", "off", { port: proxy.port });
      const stop = new AbortController();
      proxy.stall();

      const asked = there.stat("object", { signal: stop.signal }).catch((error) => error);
      setTimeout(() => stop.abort(), 50);

      expect(await asked).toBe(stop.signal.reason);
    });

    test("can be aborted in the middle of a get", async () => {
      await using there = await openAt("abort", "explicit");
      const bytes = Buffer.alloc(20_000_000, 1);
      await there.put("object", sliced(bytes, 1_000_000), { size: bytes.length, signal });
      const stop = new AbortController();

      const failure = await (async () => {
        for await (const part of there.get("object", { signal: stop.signal })) if (part.length > 0) stop.abort();
      })().catch((error) => error);

      expect(failure).toBe(stop.signal.reason);
      expect(await there.stat("object", { signal })).toMatchObject({ size: bytes.length });
    });

    test("connects again when the server has ended an idle connection", async () => {
      // On a busy machine a second may pass between two commands of one transfer.
      await using server = await startFtpServer("off", ["TimeoutIdle 3"]);
      await using there = await openOn(server, "idle");
      await put(there, "object", "x");
      await new Promise((resolve) => setTimeout(resolve, 3500));

      expect(await readText(there, "object")).toBe("x");
    });

    test("makes do with the few connections that a server allows", async () => {
      await using server = await startFtpServer("off", ["MaxClientsPerUser 2"]);
      await using there = await openOn(server, "few");
      const keys = Array.from({ length: 8 }, (_, index) => `job/${index}`);

      await Promise.all(keys.map((key) => put(there, key, key)));

      expect((await listKeys(there, "")).sort()).toEqual(keys);
    });

    test("says busy when the server has enough connections of others", async () => {
      await using server = await startFtpServer("off", ["MaxClientsPerUser 1"]);
      await using there = await openOn(server, "x");

      const failure = await failureOf(openOn(server, "x"));

      expectReason(failure, "busy");
      await put(there, "object", "x");
    });

    test("replaces an object on a server that never renames to a name that is taken", async () => {
      await using server = await startFtpServer("off", ["AllowOverwrite off"]);
      await using there = await openOn(server, "taken");
      await put(there, "object", "the old one");

      await put(there, "object", "new");

      expect(await readText(there, "object")).toBe("new");
      expect(await readdir(join(server.folder, "data/taken"))).toEqual(["object"]);
    });

    test("removes the lock of a dead process", async () => {
      await using there = await openAt("locks", "off");
      await put(there, "job/other", "x");
      const lock = join(serverOf("off").folder, "data/locks/job/object.lock.in-progress");
      await mkdir(lock);
      const then = new Date(Date.now() - 7_200_000);
      await utimes(lock, then, then);
      expect(await listKeys(there, "")).toEqual(["job/other"]);

      const removed = await there.removeUnfinished?.("job/", { olderThanMs: 3_600_000, signal });

      expect(removed).toBe(1);
      await put(there, "job/object", "x", { exclusive: true });
      expect((await readdir(join(serverOf("off").folder, "data/locks/job"))).sort()).toEqual(["object", "other"]);
    });

    test("lists nothing that stands behind a symbolic link", async () => {
      await using there = await openAt("planted", "off");
      await put(there, "probe", "x");
      const folder = join(serverOf("off").folder, "data/planted");
      await symlink(join(folder, "../ranges"), join(folder, "job"));
      await symlink("/etc/hostname", join(folder, "object"));

      expect(await listKeys(there, "")).toEqual(["probe"]);
    });

    test("says that its folder is gone instead of showing nothing", async () => {
      await using there = await openAt("gone", "explicit");
      await rm(join(serverOf("explicit").folder, "data/gone"), { recursive: true });

      expectReason(await failureOf(listKeys(there, "")), "unreachable");
      expectReason(await failureOf(listKeys(there, "job/")), "unreachable");
    });

    test.each(["off", "explicit"] as const)("says access denied where the user may not write (%s)", async (tls) => {
      const folder = join(serverOf(tls).folder, "data/closed");
      await using there = await openAt("closed", tls);
      await put(there, "object", "x");
      await chmod(folder, 0o500);

      const failures = [
        await failureOf(put(there, "other", "x")),
        await failureOf(put(there, "job/other", "x")),
        await failureOf(there.remove("object", { signal })),
        await failureOf(openAt("/root/x", tls)),
      ];

      expect(failures.map((failure) => failure.code)).toEqual(Array(4).fill("denied"));
      expect(await readText(there, "object")).toBe("x");
      await chmod(folder, 0o700);
    });

    // Needs the right to mount a file system of a few megabytes.
    test.skipIf(process.getuid?.() !== 0).each(["off", "explicit"] as const)(
      "says that the disk is full and leaves nothing there (%s)",
      async (tls) => {
        const path = join(serverOf(tls).folder, "data/full");
        await mkdir(path);
        execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m,mode=0777", "tmpfs", path]);
        try {
          await using there = await openAt("full", tls);
          const bytes = Buffer.alloc(12 * 1024 * 1024, 1);

          const failure = await failureOf(
            there.put("job/object", sliced(bytes, 100_000), { size: bytes.length, signal }),
          );

          expectReason(failure, "full");
          expect(await readdir(path)).toEqual([]);
          await put(there, "job/small", "x");
          expect(await readText(there, "job/small")).toBe("x");
        } finally {
          execFileSync("umount", [path]);
        }
      },
    );
  });

  function openOn({ port, user, password, ca, tls }: FtpServer, path: string) {
    const settings = { type: "ftp", host: "127.0.0.1", port, path, user, password, tls, ca } as const;
    return openDestination(settings, { signal });
  }
});

async function untilFileIn(folder: string): Promise<string> {
  while (true) {
    const [name] = await readdir(folder);
    if (name !== undefined) return name;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
