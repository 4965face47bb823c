import { machine } from "./bench-place.ts";

/** What one command took at a destination. */
export interface Taken {
  readonly seconds: number;
  readonly peakMiB: number;
}

/** One type of destination: list, verify and prune. */
export interface ObjectsRow {
  readonly type: string;
  readonly taken: readonly Taken[];
}

export interface ObjectsSection {
  readonly title: string;
  readonly text: string;
}

/** Renders the section of docs/benchmarks.md about many small objects. */
export function renderObjects(
  rows: readonly ObjectsRow[],
  { objects, heapMiB }: { readonly objects: number; readonly heapMiB: number },
): ObjectsSection {
  const count = objects.toLocaleString("en");
  const text = [
    `Written by \`npm run bench:objects\`: \`rowkeep list\`, \`rowkeep verify --all\` and a \`rowkeep prune\` that removes two snapshots, of ${count} objects`,
    `in ${(objects / 100).toLocaleString("en")} snapshots of 99 volumes of some hundred bytes. Whole processes with a heap of ${heapMiB} MiB; the servers share the machine (${machine});`,
    `Node ${process.versions.node}.`,
    "",
    ...renderTable(rows),
  ].join("\n");
  return { title: `${count} objects at a destination`, text };
}

export function renderTable(rows: readonly ObjectsRow[]): readonly string[] {
  return [
    "| destination | list s | MiB | verify s | MiB | prune s | MiB |",
    "|---|---|---|---|---|---|---|",
    ...rows.map(({ type, taken }) => {
      const cells = taken.flatMap(({ seconds, peakMiB }) => [seconds.toFixed(1), peakMiB.toFixed(0)]);
      return `| ${[type, ...cells].join(" | ")} |`;
    }),
  ];
}
