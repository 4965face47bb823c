import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const MOST_LINES = 400;

/** Lower floors first; a file imports from its own folder and from floors below. */
const FLOORS: readonly (readonly string[])[] = [
  ["base"],
  ["drivers", "destinations"],
  ["archive"],
  ["snapshot"],
  ["job"],
  ["plan"],
  ["usecases"],
  ["cli"],
];

interface SourceFile {
  /** Relative to the project: `src/cli/main.ts`. */
  readonly path: string;
  readonly text: string;
}

interface Import {
  readonly target: string;
  /** A type import leaves no trace when it runs, so it cannot make a cycle of loading; the floors bind it all the same. */
  readonly typeOnly: boolean;
  readonly lazy: boolean;
}

describe("the code in src", () => {
  const files = readSources();

  test("keeps to the floors, has no cycle, barrel, default export or overlong file", () => {
    expect(files.length).toBeGreaterThan(5);

    expect(violationsOf(files)).toEqual([]);
  });
});

describe("the check of the architecture", () => {
  const planted: readonly [string, readonly SourceFile[], RegExp][] = [
    [
      "an import upward",
      [file("src/base/a.ts", 'import { b } from "../plan/b.ts";'), file("src/plan/b.ts", "export const b = 1;")],
      /src\/base\/a\.ts imports upward/,
    ],
    [
      "a type import upward",
      [
        file("src/job/a.ts", 'import type { B } from "../cli/b.ts";'),
        file("src/cli/b.ts", "export interface B { readonly b: 1 }"),
      ],
      /src\/job\/a\.ts imports upward/,
    ],
    [
      "a dynamic import upward",
      [
        file("src/archive/a.ts", 'export const a = async () => (await import("../usecases/b.ts")).b;'),
        file("src/usecases/b.ts", "export const b = 1;"),
      ],
      /src\/archive\/a\.ts imports upward/,
    ],
    [
      "a re-export upward",
      [file("src/base/a.ts", 'export type { B } from "../cli/b.ts";\nexport const a = 1;'), file("src/cli/b.ts", "")],
      /src\/base\/a\.ts imports upward/,
    ],
    [
      "a driver that knows a destination",
      [
        file("src/drivers/a.ts", 'import { b } from "../destinations/b.ts";'),
        file("src/destinations/b.ts", "export const b = 1;"),
      ],
      /src\/drivers\/a\.ts imports sideways/,
    ],
    [
      "an engine that knows another engine",
      [
        file("src/drivers/postgres/a.ts", 'import { b } from "../sqlite/b.ts";'),
        file("src/drivers/sqlite/b.ts", "export const b = 1;"),
      ],
      /src\/drivers\/postgres\/a\.ts imports another engine/,
    ],
    [
      "a floor that reaches into an engine",
      [
        file("src/usecases/a.ts", 'import { b } from "../drivers/postgres/b.ts";'),
        file("src/drivers/postgres/b.ts", "export const b = 1;"),
      ],
      /src\/usecases\/a\.ts reaches into an engine/,
    ],
    [
      "a cycle over three files",
      [
        file("src/plan/a.ts", 'import { b } from "./b.ts";\nexport const a = b;'),
        file("src/plan/b.ts", 'import { c } from "./c.ts";\nexport const b = c;'),
        file("src/plan/c.ts", 'import { a } from "./a.ts";\nexport const c = a;'),
      ],
      /cycle: src\/plan\/a\.ts -> src\/plan\/b\.ts -> src\/plan\/c\.ts -> src\/plan\/a\.ts/,
    ],
    ["a barrel", [file("src/plan/index.ts", 'export { b } from "./b.ts";')], /src\/plan\/index\.ts is a barrel/],
    [
      "a barrel of another name",
      [file("src/plan/all.ts", 'export * from "./b.ts";\nexport { c } from "./c.ts";')],
      /src\/plan\/all\.ts is a barrel/,
    ],
    ["a default export", [file("src/plan/a.ts", "export default 1;")], /src\/plan\/a\.ts has a default export/],
    ["an overlong file", [file("src/plan/a.ts", "// x\n".repeat(MOST_LINES + 1))], /src\/plan\/a\.ts has \d+ lines/],
    ["an unknown folder", [file("src/utils/a.ts", "export const a = 1;")], /src\/utils\/a\.ts is on no floor/],
  ];

  test.each(planted)("notices %s", (_, files, expected) => {
    expect(violationsOf(files).join("\n")).toMatch(expected);
  });

  test("does not take the word import in a string or comment for an import", () => {
    const text = '// import { a } from "../cli/a.ts";\nexport const help = `import x from "../cli/a.ts"`;';

    expect(violationsOf([file("src/base/a.ts", text)])).toEqual([]);
  });
});

function violationsOf(files: readonly SourceFile[]): string[] {
  const known = new Map(files.map((source) => [source.path, importsOf(source)]));
  return [
    ...files.flatMap((source) => [
      ...shapeViolations(source),
      ...(known.get(source.path) ?? []).flatMap((one) => floorViolations(source.path, one)),
    ]),
    ...cyclesOf(known),
  ];
}

function shapeViolations({ path, text }: SourceFile): string[] {
  const code = withoutCommentsAndText(text);
  const lines = text.split("\n").length - 1;
  const statements = code.split(/;|\n\n/).filter((statement) => statement.trim() !== "");
  const onlyReexports =
    statements.length > 0 && statements.every((statement) => /^\s*export\s.*\sfrom\s/s.test(statement));
  return [
    ...(floorOf(path) < 0 ? [`${path} is on no floor`] : []),
    ...(lines > MOST_LINES ? [`${path} has ${lines} lines, more than ${MOST_LINES}`] : []),
    ...(/\bexport\s+default\b|\bas\s+default\b/.test(code) ? [`${path} has a default export`] : []),
    ...(onlyReexports || path.endsWith("/index.ts") ? [`${path} is a barrel`] : []),
  ];
}

function floorViolations(path: string, { target }: Import): string[] {
  const from = floorOf(path);
  const to = floorOf(target);
  if (from < 0) return [];
  if (to > from) return [`${path} imports upward: ${target}`];
  const folder = folderOf(path);
  if (to === from && folderOf(target) !== folder) return [`${path} imports sideways: ${target}`];
  const engine = engineOf(target);
  if (engine === undefined || engine === engineOf(path)) return [];
  if (engineOf(path) !== undefined) return [`${path} imports another engine: ${target}`];
  // The one door into the engines.
  return /^src\/drivers\/open-[a-z-]+\.ts$/.test(path) ? [] : [`${path} reaches into an engine: ${target}`];
}

function cyclesOf(graph: ReadonlyMap<string, readonly Import[]>): string[] {
  const cycles: string[] = [];
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]) => {
    const start = trail.indexOf(path);
    if (start >= 0) {
      cycles.push(`cycle: ${[...trail.slice(start), path].join(" -> ")}`);
      return;
    }
    if (done.has(path)) return;
    // A lazy or type-only import cannot make a module wait for itself.
    for (const { target, typeOnly, lazy } of graph.get(path) ?? []) {
      if (!typeOnly && !lazy) visit(target, [...trail, path]);
    }
    done.add(path);
  };
  for (const path of graph.keys()) visit(path, []);
  return cycles;
}

function importsOf({ path, text }: SourceFile): Import[] {
  const imports: Import[] = [];
  const add = (specifier: string, typeOnly: boolean, lazy: boolean) => {
    if (specifier.startsWith(".")) {
      imports.push({ target: posix.normalize(posix.join(posix.dirname(path), specifier)), typeOnly, lazy });
    }
  };
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  for (const match of code.matchAll(/^(?:import|export)\s+(type\s+)?(?:[^;`"']*?\sfrom\s+)?"([^"]+)"/gm)) {
    add(match[2] ?? "", match[1] !== undefined || onlyTypes(match[0]), false);
  }
  for (const match of code.matchAll(/\bimport\(\s*"([^"]+)"/g)) add(match[1] ?? "", false, true);
  return imports;
}

/** `import { type A, type B } from …` loads nothing under verbatimModuleSyntax but the module itself: not type-only. */
function onlyTypes(statement: string): boolean {
  return /^(?:import|export)\s+type\s/.test(statement);
}

function withoutCommentsAndText(text: string): string {
  return text
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/(^|\s)\/\/.*$/gm, "$1")
    .replace(/`(?:[^`\\]|\\[\s\S])*`/g, "``")
    .replace(/"(?:[^"\\\n]|\\.)*"/g, '""');
}

function floorOf(path: string): number {
  const folder = folderOf(path);
  return FLOORS.findIndex((floor) => floor.includes(folder));
}

function folderOf(path: string): string {
  return path.split("/")[1] ?? "";
}

function engineOf(path: string): string | undefined {
  const parts = path.split("/");
  return parts[1] === "drivers" && parts.length > 3 ? parts[2] : undefined;
}

function file(path: string, text: string): SourceFile {
  return { path, text };
}

function readSources(): SourceFile[] {
  return readdirSync(join(root, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => {
      const full = join(entry.parentPath, entry.name);
      return { path: relative(root, full).split(sep).join("/"), text: readFileSync(full, "utf8") };
    });
}
