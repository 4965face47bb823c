import { execFile } from "node:child_process";
import { copyFile, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { generateKeyPair } from "../../src/archive/age-keys.ts";
import { createDatabase } from "../support/postgres.ts";
import { createFolder, ID, PREFIX, writeSample } from "./sample-snapshot.ts";

const run = promisify(execFile);
const AGE_COMMAND = fileURLToPath(new URL("../support/age-command.ts", import.meta.url));

const pair = await generateKeyPair();

test.each([
  ["tar, zstd and psql", undefined],
  ["tar, age, zstd and psql", { recipients: [pair.recipient] }],
])("recovers everything with %s by the commands of RECOVER.md alone", async (_, lock) => {
  await using folder = await createFolder();
  await using database = await createDatabase(18, 'create table public."odd ""name"";\n--" (id bigint, label text)');
  await database.query("create sequence public.orders_id_seq");
  await writeSample({
    destinations: [folder.destination],
    spoolFolder: folder.spool,
    volumeBytes: 16 * 1024,
    ...(lock ? { lock } : {}),
  });
  const volumes = join(folder.path, "store", PREFIX, ID);
  for (const name of await readdir(volumes)) await copyFile(join(volumes, name), join(folder.path, name));
  await run("tar", ["-xf", "volume-0001.tar", "RECOVER.md"], { cwd: folder.path });
  const { stdout: text } = await run("cat", ["RECOVER.md"], { cwd: folder.path });
  const commands = text.split("\n").filter((line) => line.startsWith("    "));
  await writeFile(join(folder.path, "commands.sh"), `set -eu\n${commands.map((line) => line.slice(4)).join("\n")}\n`);

  await writeFile(join(folder.path, "identity.txt"), `# mine\n${pair.identity}\n`);
  await mkdir(join(folder.path, "bin"));
  await writeFile(join(folder.path, "bin", "age"), `#!/bin/sh\nexec "${process.execPath}" "${AGE_COMMAND}" "$@"\n`, {
    mode: 0o755,
  });

  const url = new URL(database.url);
  const env = {
    ...process.env,
    PATH: `${join(folder.path, "bin")}:${process.env.PATH}`,
    PGHOST: url.hostname,
    PGPORT: url.port,
    PGUSER: url.username,
    PGPASSWORD: decodeURIComponent(url.password),
    PGDATABASE: database.name,
  };
  await run("sh", ["commands.sh"], { cwd: folder.path, env });

  expect(await database.query("select count(*), count(distinct label) from public.orders")).toEqual([["1600", "1600"]]);
  expect(await database.query('select count(*) from public."odd ""name"";\n--"')).toEqual([["800"]]);
  expect(await database.query("select last_value from public.orders_id_seq")).toEqual([["400"]]);
  expect(await database.query("select lo_get(16400)")).toEqual([["\\xdeadbeef"]]);
  expect(await database.query("select indexname from pg_indexes where tablename = 'orders'")).toEqual([
    ["orders_label"],
  ]);
});
