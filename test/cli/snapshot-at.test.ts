import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { useCliPlace } from "../support/cli-place.ts";
import { createDatabase } from "../support/postgres.ts";

const place = useCliPlace();

test("--at takes the newest snapshot not younger, and so does a time, wherever a snapshot is named", async () => {
  await using database = await createDatabase(18, "create table t (id int primary key); insert into t values (1)");
  await writeFile(
    place.file,
    `version: 1
name: shop
source: { url: "${database.url}", tls: off }
destinations: [{ type: local, path: ${join(place.folder, "backups")} }]
`,
  );
  const cli = (...args: string[]) => place.cli(...args, "--json");
  const made = (await cli("run", place.file)).last()["snapshots"] as { id: string; createdAt: string }[];
  const [first] = made;
  await sleep(1100);
  await database.query("insert into t values (2)");
  await cli("run", place.file);
  const time = first?.createdAt ?? "";
  const at = ["--at", time];

  const results = {
    show: await cli("show", place.file, ...at),
    cat: await cli("cat", place.file, "t", ...at),
    verify: await cli("verify", place.file, ...at),
    pin: await cli("pin", place.file, ...at),
    compare: await cli("compare", place.file, ...at),
    restore: await cli("restore", place.file, ...at, "--plan"),
    diff: await cli("diff", place.file, time, "latest"),
  };
  const both = await cli("cat", place.file, "latest", "t", ...at);
  const none = await cli("show", place.file);
  const early = await cli("show", place.file, "--at", "2001-01-01");

  const codes = Object.entries(results).map(([name, { exitCode }]) => `${name} ${exitCode}`);
  expect(codes).toEqual(["show 0", "cat 0", "verify 0", "pin 0", "compare 4", "restore 0", "diff 4"]);
  expect(results.show.last()["snapshot"]).toMatchObject({ id: first?.id });
  expect(results.cat.last()).toMatchObject({ snapshot: first?.id, rows: 1 });
  expect(results.verify.last()["snapshots"]).toMatchObject([{ id: first?.id }]);
  expect(results.pin.last()).toMatchObject({ id: first?.id });
  expect(results.compare.last()).toMatchObject({ right: { label: first?.id } });
  expect(results.restore.last()).toMatchObject({ snapshot: first?.id });
  expect(results.diff.last()).toMatchObject({ left: { label: first?.id } });
  expect([both.exitCode, both.last()["code"]]).toEqual([2, "both-chosen"]);
  expect(none.exitCode).toBe(2);
  expect([early.exitCode, early.last()["code"]]).toEqual([2, "not-found"]);
});
