import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { Definition } from "../../src/drivers/driver.ts";
import { chooseContent } from "../../src/plan/choose-content.ts";
import { parseManifest } from "../../src/snapshot/parse-manifest.ts";

const path = "../fixtures/archives/v1/shop/shop/20261121T020000Z-full/manifest.json";
const old = parseManifest(readFileSync(new URL(path, import.meta.url)), "manifest.json");

test("refuses to choose tables of a snapshot that does not tell what they need", () => {
  expect(() => chooseContent(old, ["*"])).toThrow(
    expect.objectContaining({ kind: "refused", code: "no-dependencies" }),
  );
});

test("keeps a trigger whose needs are chosen and leaves out one that needs a view", () => {
  const [table] = old.tables;
  if (!table) throw new Error("the fixture has no table");
  const { schema, name } = table;
  const definition = (kind: string, own: string, needs: readonly number[]): Definition => ({
    section: "post-data",
    kind,
    schema,
    name: own,
    ...(kind === "trigger" || kind === "table" ? { table: { schema, name } } : {}),
    needs,
    sql: `${kind} ${own}`,
  });
  const definitions = [
    definition("table", name, []),
    definition("view", "seen", []),
    definition("function", "touch", []),
    definition("function", "watch", [1]),
    definition("trigger", "touched", [0, 2]),
    definition("trigger", "watched", [0, 3]),
  ];

  const { manifest, warnings } = chooseContent({ ...old, definitions }, [`"${schema}"."${name}"`]);

  expect(manifest.definitions.map(({ sql }) => sql)).toEqual([`table ${name}`, "function touch", "trigger touched"]);
  expect(warnings).toEqual([
    `trigger watched of ${schema}.${name} is not restored: it needs ${schema}.seen`,
    "large objects are not restored with chosen tables",
  ]);
});
