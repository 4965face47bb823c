import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe } from "vitest";
import type { FtpSettings } from "../../src/destinations/destination-settings.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { type FtpServer, startFtpServer, withPrograms } from "../support/services.ts";
import { describeDestination, leaveFileIn } from "./contract.ts";

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
});
