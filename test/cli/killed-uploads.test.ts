import { readdirSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Destination } from "../../src/destinations/destination.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import { runCli } from "../support/cli.ts";
import { startCountingProxy } from "../support/counting-proxy.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";
import { withPrograms } from "../support/services.ts";
import {
  type DestinationType,
  PROGRAMS,
  type SixDestinations,
  startSixDestinations,
  TYPES,
} from "../support/six-destinations.ts";

/** How many moments of an upload are tried for each type of destination. */
const MOMENTS = Number(process.env["ROWKEEP_KILL_MOMENTS"] ?? 4);
const signal = new AbortController().signal;

/** Counts what happens at a destination, and calls somebody at a chosen moment. */
interface Meter extends AsyncDisposable {
  readonly port: number | undefined;
  readonly count: number;
  stopAt(count: number, act: () => void): void;
  restart(): void;
}

withPrograms(PROGRAMS, () => {
  let six: SixDestinations;
  let database: TestDatabase;
  beforeAll(async () => {
    // Its commands are pieces that can be counted, with or without TLS; data connections pass the proxy by.
    six = await startSixDestinations("off");
    database = await createDatabase(
      18,
      `create table orders (id int primary key, note text);
       insert into orders select i, md5(i::text) || md5((i * 7)::text) from generate_series(1, 60000) i`,
    );
  });
  afterAll(async () => {
    await database?.[Symbol.asyncDispose]();
    await six?.[Symbol.asyncDispose]();
  });

  async function openMeter(type: DestinationType, place: string): Promise<Meter> {
    if (type !== "local") {
      const proxy = await startCountingProxy(six.portOf(type));
      return {
        port: proxy.port,
        get count() {
          return proxy.pieces;
        },
        stopAt: (count, act) => proxy.stopAt(count, act),
        restart: () => proxy.restart(),
        [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose](),
      };
    }
    const folder = join(six.folder, place);
    // Folders that only the first run would make are no steps.
    await mkdir(join(folder, "shop", database.name), { recursive: true });
    await mkdir(join(folder, "shop.spool.in-progress"));
    return new FolderMeter(folder);
  }

  /** Everything that lies at a destination but marks, unfinished files too where its files can be seen. */
  async function namesAt(type: DestinationType, place: string, destination: Destination): Promise<string[]> {
    return (await allNamesAt(type, place, destination)).filter((name) => !name.endsWith("verified.json"));
  }

  async function allNamesAt(type: DestinationType, place: string, destination: Destination): Promise<string[]> {
    const folders: Partial<Record<DestinationType, string>> = {
      local: join(six.folder, place),
      ftp: join(six.ftp.folder, "data", place),
      sftp: join(six.sftp.folder, "data", place),
    };
    const folder = folders[type];
    if (folder === undefined) return (await Array.fromAsync(destination.list("", { signal }))).map(({ key }) => key);
    const entries = await readdir(folder, { recursive: true, withFileTypes: true });
    return entries.filter((entry) => !entry.isDirectory() || entry.name.includes(".lock")).map(({ name }) => name);
  }

  test.concurrent.each(TYPES)(
    "a run killed at any moment of its upload leaves nothing wrong at %s",
    { timeout: 600_000 },
    async (type) => {
      const place = `killed-${type}`;
      const prefix = `shop/${database.name}`;
      const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
      const options = { home: join(folder, "home"), cwd: folder };
      const file = join(folder, "shop.yaml");
      await using meter = await openMeter(type, place);
      await using destination = await six.open(type, place);
      // A local upload would be over before anybody could look.
      const slowly = type === "local" ? { bandwidth: "5MB" } : {};
      const destinations = [{ ...six.written(type, place, meter.port), ...slowly }];
      const source = { url: database.url };
      await writeFile(file, JSON.stringify({ version: 1, name: "shop", source, destinations, volumeSize: "1MB" }));
      const listed = async () => {
        const { snapshots, damaged } = await openRepository(destination, prefix).list({ signal });
        expect(damaged).toEqual([]);
        return snapshots.map(({ id }) => id);
      };
      const untouched = await runCli(["run", file], options);
      const total = meter.count;
      const kept = await listed();
      const names = await namesAt(type, place, destination);
      expect([untouched.exitCode, kept.length], untouched.stderr).toEqual([0, 1]);
      let killed = 0;

      for (let moment = 0; moment < MOMENTS; moment++) {
        // The last ones lie close together: the manifest is small.
        const share = 1 - (1 - (moment + 0.5) / MOMENTS) ** 2;
        const run = await runCli(["run", file], {
          ...options,
          during: (child) => meter.stopAt(Math.max(1, Math.round(share * total)), () => child.kill("SIGKILL")),
        });
        meter.restart();
        if (run.signal === "SIGKILL") killed++;
        for (const id of await listed()) {
          const verdict = await verifySnapshot({ destinations: [destination], prefix, id, signal, report: () => {} });
          expect(verdict.ok, `${id}, moment ${share}`).toBe(true);
        }
      }
      const next = await runCli(["run", file, "--json"], options);
      const left = await namesAt(type, place, destination);

      expect(killed).toBeGreaterThan(MOMENTS / 2);
      expect(next.exitCode, next.stdout).toBe(0);
      const whole = await listed();
      const each = names.length / kept.length;
      expect(left.filter((name) => name.includes(".in-progress"))).toEqual([]);
      expect(left.length, left.join("\n")).toBe(each * whole.length);
      await rm(folder, { recursive: true, force: true });
    },
  );
});

/** Counts the names that appear in a folder, one after the other: the steps of an upload that can be seen from outside. */
class FolderMeter implements Meter {
  readonly port = undefined;
  readonly #folder: string;
  readonly #timer: NodeJS.Timeout;
  #seen = new Set<string>();
  #old = new Set<string>();
  #stop: { readonly count: number; readonly act: () => void } | undefined;

  constructor(folder: string) {
    this.#folder = folder;
    this.restart();
    this.#timer = setInterval(() => this.#look(), 1);
  }

  get count(): number {
    return this.#seen.size;
  }

  stopAt(count: number, act: () => void): void {
    this.restart();
    this.#stop = { count, act };
  }

  restart(): void {
    this.#old = new Set(this.#names());
    this.#seen = new Set();
    this.#stop = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
  }

  #look(): void {
    for (const name of this.#names()) if (!this.#old.has(name)) this.#seen.add(name);
    if (!this.#stop || this.#seen.size < this.#stop.count) return;
    this.#stop.act();
    this.#stop = undefined;
  }

  #names(): readonly string[] {
    try {
      return readdirSync(this.#folder, { recursive: true, encoding: "utf8" });
    } catch {
      // A folder that went away while it was being read: the next look sees the rest.
      return [];
    }
  }
}
