import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, expect, test } from "vitest";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { never, PREFIX, type SampleOptions, writeSample } from "../snapshot/sample-snapshot.ts";
import { useCliPlace } from "../support/cli-place.ts";

const place = useCliPlace();
const { cli } = place;
const OTHER_ID = "20261121T030000Z-full";

beforeEach(async () => {
  const destinations = ["one", "two"].map((name) => ({ type: "local", name, path: name }));
  // Nobody listens there: these commands have no business with the database.
  const source = { url: "postgres://me@127.0.0.1:1/shop" };
  await writeFile(place.file, JSON.stringify({ version: 1, name: "shop", source, destinations }));
});

async function write(names: readonly string[], options: Partial<SampleOptions> = {}): Promise<void> {
  const destinations = await Promise.all(
    names.map((name) =>
      openLocalDestination({ type: "local", name, path: join(place.folder, name) }, { signal: never }),
    ),
  );
  await writeSample({ destinations, spoolFolder: join(place.folder, "spool"), ...options });
}

test("a snapshot that nobody has, or that several could be, is a mistake of the command line: 2", async () => {
  const none = await cli("show", place.file, "latest", "--json");
  await write(["one", "two"]);
  await write(["one", "two"], { id: OTHER_ID, manifest: { createdAt: "2026-11-21T03:00:00.000Z" } });

  const commands = (name: string) => [
    ["show", place.file, name],
    ["cat", place.file, name, "t"],
    ["pin", place.file, name],
    ["verify", place.file, name],
    ["diff", place.file, name, "latest"],
    ["restore", place.file, name, "--plan"],
  ];
  const unknown = [];
  for (const args of commands("20250101")) unknown.push((await cli(...args, "--json")).last());
  const ambiguous = [];
  for (const args of commands("20261121")) ambiguous.push((await cli(...args, "--json")).last());
  const early = await cli("restore", place.file, "--at", "2020-01-01T00:00Z", "--plan", "--json");
  const undo = await cli("undo", place.file, "--json");

  const told = { type: "error", exitCode: 2 };
  expect(none.last()).toMatchObject({ ...told, code: "not-found" });
  for (const error of unknown) expect(error).toMatchObject({ ...told, code: "not-found" });
  for (const error of ambiguous) expect(error).toMatchObject({ ...told, code: "ambiguous" });
  expect(early.last()).toMatchObject({ ...told, code: "not-found" });
  expect(undo.last()).toMatchObject({ ...told, code: "nothing-to-undo" });
});

test("a snapshot that may be where nobody answered is not called unknown: 6", async () => {
  await write(["one"]);
  // The folder can be opened, what is in it cannot be listed.
  await mkdir(join(place.folder, "two"));
  await writeFile(join(place.folder, "two", PREFIX.split("/")[0] ?? ""), "");

  const show = await cli("show", place.file, "20250101", "--json");

  expect(show.last()).toMatchObject({ type: "error", exitCode: 6 });
  expect(show.last()["message"]).toMatch(
    /"20250101": there is none with this id where rowkeep could look; two was not read: cannot /,
  );
});
