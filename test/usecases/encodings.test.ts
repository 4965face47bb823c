import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { type CliPlace, useCliPlace } from "../support/cli-place.ts";
import { createDatabase, postgresMajors, type TestDatabase } from "../support/postgres.ts";

const execute = promisify(execFile);

/** Bytes that are no UTF-8, as a key, in a value, behind a backslash, and beside text that is. */
const ROWS = `
  create table t (k text primary key, v text, a text[]);
  insert into t select convert_from(decode(k, 'hex'), 'SQL_ASCII'), convert_from(decode(v, 'hex'), 'SQL_ASCII'), array[convert_from(decode(v, 'hex'), 'SQL_ASCII'), 'x']
    from (values ('636166e9', 'e9'), ('636166e8', 'e85c09'), ('636166c3a9', 'c3a9'), ('61', 'ff0afe')) x(k, v);
  insert into t select 'row ' || i, 'value ' || i from generate_series(1, 3000) i`;
const CHANGES = `update t set v = convert_from('\\xfd', 'SQL_ASCII') where k = 'a'; delete from t where k = convert_from('\\x636166e8', 'SQL_ASCII')`;
const CONTENT = `select md5(string_agg(encode(convert_to(k || coalesce(v, '') || coalesce(a::text, ''), 'SQL_ASCII'), 'hex'), ',' order by k collate "C")), count(*) from t`;
const ASCII = "encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0";

const writeJob = ({ file, folder }: CliPlace, url: string) =>
  writeFile(
    file,
    `version: 1
name: shop
source: { url: "${url}", tls: off }
schedule: { incremental: "0 * * * *" }
destinations: [{ type: local, path: ${join(folder, "backups")} }]
`,
  );

async function runJson({ cli }: CliPlace, ...args: string[]) {
  const { exitCode, stdout, stderr } = await cli("--json", ...args);
  return { exitCode, stderr, result: JSON.parse(stdout.trim().split("\n").at(-1) ?? "{}") };
}

/** Runs the commands of a snapshot's RECOVER.md but for the last, which is about files. */
async function recoverByHand(folder: string, target: TestDatabase): Promise<void> {
  await execute("tar", ["-xf", "volume-0001.tar"], { cwd: folder });
  const text = await readFile(join(folder, "RECOVER.md"), "utf8");
  const commands = text.split("\n").flatMap((line) => (line.startsWith("    ") ? [line.slice(4)] : []));
  const url = new URL(target.url);
  const env = { PGHOST: url.hostname, PGPORT: url.port, PGUSER: url.username, PGPASSWORD: url.password };
  await execute("sh", ["-euc", commands.slice(0, -1).join("\n")], {
    cwd: folder,
    env: { ...process.env, ...env, PGDATABASE: target.name },
  });
}

describe.each(postgresMajors)("a database of PostgreSQL %i whose encoding is SQL_ASCII", (major) => {
  const place = useCliPlace();

  const job = (url: string) => writeJob(place, url);
  const run = (...args: string[]) => runJson(place, ...args);
  const contentOf = async (database: TestDatabase) => (await database.query(CONTENT))[0];

  test("comes back byte for byte, from a full and an incremental, in place and in an empty database", async () => {
    await using source = await createDatabase(major, ROWS, ASCII);
    await using empty = await createDatabase(major, undefined, ASCII);
    await job(source.url);

    const full = await run("run", place.file, "--full");
    const before = await contentOf(source);
    await source.query(CHANGES);
    const incremental = await run("run", place.file, "--incremental");
    const changed = await contentOf(source);
    const created = await run("restore", place.file, "latest", "--create", "--to", empty.url, "--yes");
    const first = await run("restore", place.file, full.result.snapshots[0].id, "--yes");
    const restored = await contentOf(source);

    expect([full.exitCode, incremental.exitCode, created.exitCode, first.exitCode], full.stderr).toEqual([0, 0, 0, 0]);
    expect(incremental.result.snapshots[0].kind).toBe("incremental");
    expect(restored).toEqual(before);
    expect(await contentOf(empty)).toEqual(changed);
  });

  test("comes back by hand with the commands of RECOVER.md", async () => {
    await using source = await createDatabase(major, ROWS, ASCII);
    await using empty = await createDatabase(major, undefined, ASCII);
    await job(source.url);
    const { result } = await run("run", place.file, "--full");

    await recoverByHand(join(place.folder, "backups", "shop", source.name, result.snapshots[0].id), empty);

    expect(await contentOf(empty)).toEqual(await contentOf(source));
  });

  test("is compared, verified by a drill and written out with the bytes that it has", async () => {
    await using source = await createDatabase(major, ROWS, ASCII);
    await job(source.url);
    await run("run", place.file, "--full");

    const equal = await run("compare", place.file, "--with", "latest");
    const drill = await run("verify", place.file, "--drill");
    await source.query(CHANGES);
    const different = await run("compare", place.file, "--with", "latest", "--rows");
    const cat = await place.cli("cat", place.file, "latest", "t", "--where", "k = 'a'");

    expect([equal.exitCode, drill.exitCode, different.exitCode, cat.exitCode], drill.stderr).toEqual([0, 0, 4, 0]);
    const differences = different.result.tables[0].differences;
    expect(differences).toHaveLength(2);
    expect(differences).toContainEqual(expect.objectContaining({ key: { k: "a" }, kind: "changed" }));
    expect(differences).toContainEqual(expect.objectContaining({ key: { k: "caf\udce8" } }));
  });

  test("keeps its rows when a definition is not UTF-8, which is named", async () => {
    await using source = await createDatabase(major, ROWS, ASCII);
    await source.query(
      `do $$ begin execute convert_from('\\x${Buffer.from("comment on table t is 'caf\xe9'", "latin1").toString("hex")}', 'SQL_ASCII'); end $$`,
    );
    await job(source.url);

    const { exitCode, result } = await run("run", place.file, "--full");

    expect(exitCode).toBe(3);
    expect(result.warnings).toContainEqual(expect.stringContaining("is not captured: its definition is not UTF-8"));
  });

  test("is refused with the name of the table when that is not UTF-8", async () => {
    await using source = await createDatabase(major, undefined, ASCII);
    await source.query(
      `do $$ begin execute convert_from('\\x${Buffer.from('create table "caf\xe9" (i int)', "latin1").toString("hex")}', 'SQL_ASCII'); end $$`,
    );
    await job(source.url);

    const { exitCode, stderr, result } = await run("run", place.file, "--full");

    expect(exitCode, stderr).toBe(5);
    expect(JSON.stringify(result)).toContain("public.caf\ufffd");
  });

  test("is refused by a target of another encoding before anything is done", async () => {
    await using source = await createDatabase(major, ROWS, ASCII);
    await using empty = await createDatabase(major);
    await job(source.url);
    await run("run", place.file, "--full");

    const { exitCode, result } = await run("restore", place.file, "latest", "--create", "--to", empty.url, "--yes");

    expect(exitCode).toBe(9);
    expect(result.message).toContain("its encoding is UTF8, the snapshot's SQL_ASCII");
  });
});

const OWN = [
  { major: 18, encoding: "WIN1252", odd: "81", plain: "e9" },
  { major: 15, encoding: "EUC_JP", odd: "a9a1", plain: "a4a2" },
] as const;

describe.each(OWN)(
  "a database of PostgreSQL $major in $encoding with text that UTF-8 has not",
  ({ major, ...text }) => {
    const { encoding, odd, plain } = text;
    const options = `encoding '${encoding}' lc_collate 'C' lc_ctype 'C' template template0`;
    const of = (hex: string) => `convert_from('\\x${hex}', '${encoding}')`;
    const rows = `set client_encoding = '${encoding}'; create table t (k text primary key, v text, a text[]);
    insert into t values (${of(odd)}, ${of(`61${plain}`)}, array[${of(odd)}, 'x']), (${of(plain)}, ${of(`${odd}5c09`)}, null), ('a', ${of(odd)}, null);
    insert into t select 'row ' || i, 'value ' || i from generate_series(1, 3000) i;
    do $$ begin execute ${of(Buffer.from('create table "').toString("hex") + plain + Buffer.from('" as select * from t').toString("hex"))}; end $$`;
    const content = CONTENT.replace("SQL_ASCII", encoding);
    const contentOf = async (database: TestDatabase) => (await database.query(content))[0];
    const changes = `update t set v = ${of(`${odd}${plain}`)} where k = 'a'; delete from t where k = ${of(plain)}`;
    const place = useCliPlace();
    const job = (url: string) => writeJob(place, url);
    const run = (...args: string[]) => runJson(place, ...args);

    test("comes back byte for byte, from a full and an incremental, in place and in an empty database", async () => {
      await using source = await createDatabase(major, rows, options);
      await using empty = await createDatabase(major, undefined, options);
      await job(source.url);

      const full = await run("run", place.file, "--full");
      const before = await contentOf(source);
      await source.query(changes);
      const incremental = await run("run", place.file, "--incremental");
      const changed = await contentOf(source);
      const created = await run("restore", place.file, "latest", "--create", "--to", empty.url, "--yes");
      const first = await run("restore", place.file, full.result.snapshots[0].id, "--yes");
      const restored = await contentOf(source);

      expect([full.exitCode, incremental.exitCode, created.exitCode, first.exitCode], full.stderr).toEqual([
        0, 0, 0, 0,
      ]);
      expect(incremental.result.snapshots[0].kind).toBe("incremental");
      expect(restored).toEqual(before);
      expect(await contentOf(empty)).toEqual(changed);
    });

    test("is compared, verified by a drill and written out with the bytes that it has", async () => {
      await using source = await createDatabase(major, rows, options);
      await job(source.url);
      await run("run", place.file, "--full");

      const equal = await run("compare", place.file, "--with", "latest");
      const drill = await run("verify", place.file, "--drill");
      await source.query(changes);
      const different = await run("compare", place.file, "--with", "latest", "--rows");
      const csv = await place.cli("cat", place.file, "latest", "t", "--format", "csv");
      const json = await place.cli("cat", place.file, "latest", "t", "--format", "json");

      expect([equal.exitCode, drill.exitCode, different.exitCode], drill.stderr).toEqual([0, 0, 4]);
      expect(different.result.tables[0].differences).toHaveLength(2);
      expect(csv.exitCode).toBe(0);
      expect(json.exitCode).toBe(9);
    });

    test("comes back by hand with the commands of RECOVER.md", async () => {
      await using source = await createDatabase(major, rows, options);
      await using empty = await createDatabase(major, undefined, options);
      await job(source.url);
      const { result } = await run("run", place.file, "--full");

      await recoverByHand(join(place.folder, "backups", "shop", source.name, result.snapshots[0].id), empty);

      expect(await contentOf(empty)).toEqual(await contentOf(source));
    });

    test("comes back from an exported file", async () => {
      await using source = await createDatabase(major, rows, options);
      await using empty = await createDatabase(major, undefined, options);

      const exported = await run("export", source.url, "shop.rowkeep");
      const imported = await run("import", "shop.rowkeep", empty.url, "--create", "--yes");

      expect([exported.exitCode, imported.exitCode], exported.stderr).toEqual([0, 0]);
      expect(await contentOf(empty)).toEqual(await contentOf(source));
    });

    test("is refused by a target of another encoding", async () => {
      await using source = await createDatabase(major, rows, options);
      await using empty = await createDatabase(major);
      await job(source.url);
      await run("run", place.file, "--full");

      const { exitCode, result } = await run("restore", place.file, "latest", "--create", "--to", empty.url, "--yes");

      expect(exitCode).toBe(9);
      expect(result.message).toContain(`its encoding is UTF8, the snapshot's ${encoding}`);
    });

    test("is kept in UTF-8 until such text comes, and an incremental becomes a full then", async () => {
      await using source = await createDatabase(major, rows, options);
      await source.query(
        `delete from t where k !~ '^row '; drop table ${`"${encoding === "WIN1252" ? "\u00e9" : "\u3042"}"`}`,
      );
      await job(source.url);
      await run("run", place.file, "--full");

      await source.query(`insert into t values ('b', ${of(odd)})`);
      const { exitCode, result } = await run("run", place.file, "--incremental");
      const next = await run("run", place.file, "--incremental");

      expect(exitCode, JSON.stringify(result)).toBe(0);
      expect(result.snapshots[0].kind).toBe("full");
      expect(next.result.snapshots[0].kind).toBe("incremental");
    });
  },
);
