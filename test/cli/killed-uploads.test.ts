import { readdirSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { generateKeyPair } from "../../src/archive/age-keys.ts";
import { openRepository, type Repository } from "../../src/snapshot/repository.ts";
import { createKeyRing } from "../../src/snapshot/snapshot-key.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import { runCli, runCliHere } from "../support/cli.ts";
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

/** How many moments of an upload are tried for each kind of run and each type of destination. */
const MOMENTS = Number(process.env["ROWKEEP_KILL_MOMENTS"] ?? 2);
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

  /** Names of files that are not finished, where files can be seen, and what is left of them. */
  async function unfinishedAt(type: DestinationType, place: string): Promise<string[]> {
    const folders: Partial<Record<DestinationType, string>> = {
      local: join(six.folder, place),
      ftp: join(six.ftp.folder, "data", place),
      sftp: join(six.sftp.folder, "data", place),
    };
    const folder = folders[type];
    if (folder === undefined) return [];
    const entries = await readdir(folder, { recursive: true, withFileTypes: true });
    const names = entries.filter((entry) => !entry.isDirectory() || entry.name.includes(".lock"));
    return names.map(({ name }) => name).filter((name) => /\.in-progress|\.lock/.test(name));
  }

  test.concurrent.each(TYPES.flatMap((type) => [[type, "full"] as const, [type, "encrypted incremental"] as const]))(
    "a run killed at any moment of its upload leaves nothing wrong at %s: %s",
    { timeout: 600_000 },
    async (type, kind) => {
      const isFull = kind === "full";
      const place = `killed-${type}-${isFull ? "full" : "incremental"}`;
      const prefix = `shop/${database.name}`;
      const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
      const options = { home: join(folder, "home"), cwd: folder };
      const file = join(folder, "shop.yaml");
      await using meter = await openMeter(type, place);
      await using destination = await six.open(type, place);
      const pair = await generateKeyPair();
      const keys = isFull ? undefined : createKeyRing({ identities: [pair.identity] });
      const repository = openRepository(destination, prefix, { keys });
      // A local upload would be over before anybody could look.
      const slowly = type === "local" ? { bandwidth: isFull ? "5MB" : "1MB" } : {};
      const job = {
        version: 1,
        name: "shop",
        source: { url: database.url },
        volumeSize: "1MB",
        destinations: [{ ...six.written(type, place, meter.port), ...slowly }],
        ...(isFull ? {} : { encryption: { recipients: [pair.recipient] } }),
      };
      await writeFile(file, JSON.stringify(job));
      const args = ["run", file, "--json", ...(isFull ? [] : ["--incremental"])];
      const change = () => database.query(`update orders set note = md5(note) where id % 10 = 0`);
      const listed = async () => {
        const { snapshots, damaged, locked } = await repository.list({ signal });
        expect([damaged, locked]).toEqual([[], []]);
        return snapshots.map(({ id }) => id);
      };
      if (!isFull) {
        const base = await runCliHere(args, options);
        expect(base.exitCode, base.stdout).toBe(0);
        await change();
      }
      meter.restart();
      // Steps that are seen from outside must be counted from outside, too.
      const untouched = await (type === "local" ? runCli : runCliHere)(args, options);
      const total = meter.count;
      expect(untouched.exitCode, untouched.stdout).toBe(0);
      let killed = 0;

      for (let moment = 0; moment < MOMENTS; moment++) {
        // The last ones lie close together: the manifest is small.
        const share = 1 - (1 - (moment + (isFull ? 0.35 : 0.65)) / MOMENTS) ** 2;
        await change();
        const run = await runCli(args, {
          ...options,
          during: (child) => meter.stopAt(Math.max(1, Math.round(share * total)), () => child.kill("SIGKILL")),
        });
        meter.restart();
        if (run.signal === "SIGKILL") killed++;
        for (const id of await listed()) {
          const where = { destinations: [destination], prefix, keys, id };
          const verdict = await verifySnapshot({ ...where, signal, report: () => {} });
          expect(verdict.ok, `${id}, moment ${share}`).toBe(true);
        }
      }
      await change();
      const next = await runCliHere(args, options);

      expect(killed).toBeGreaterThanOrEqual(MOMENTS / 2);
      expect(next.exitCode, next.stdout).toBe(0);
      expect(next.last()["snapshots"]).toMatchObject([{ kind: isFull ? "full" : "incremental" }]);
      expect(await unfinishedAt(type, place)).toEqual([]);
      expect(await strangersAt(repository)).toEqual([]);
      await rm(folder, { recursive: true, force: true });
    },
  );
});

/** Objects that belong to no listed snapshot: what the next run should have removed. */
async function strangersAt(repository: Repository): Promise<string[]> {
  const { destination, prefix } = repository;
  const known = new Set<string>();
  for (const id of await repository.ids({ signal })) {
    const { manifest } = await repository.open(id, { signal });
    const besides = manifest.encryption ? ["manifest.json.age", "key.age", "envelope.json"] : ["manifest.json"];
    const names = [...manifest.volumes.map(({ name }) => name), ...besides, "verified.json"];
    for (const name of names) known.add(`${prefix}/${id}/${name}`);
  }
  const keys = await Array.fromAsync(destination.list("", { signal }), ({ key }) => key);
  return keys.filter((key) => !known.has(key));
}

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
