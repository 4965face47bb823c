import { writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { page } from "../../bench/bench-place.ts";
import { writeSection } from "../../bench/benchmarks-page.ts";
import { type ObjectsRow, renderObjects, renderTable } from "../../bench/objects-section.ts";
import { createFolder, type TestFolder } from "../snapshot/sample-snapshot.ts";
import { type CliResult, runCli } from "../support/cli.ts";
import { makeManySnapshots, type ManySnapshots, storeManySnapshots } from "../support/many-objects.ts";
import { withPrograms } from "../support/services.ts";
import {
  type DestinationType,
  PROGRAMS_OF,
  type SixDestinations,
  startSixDestinations,
  TYPES,
} from "../support/six-destinations.ts";

/** In CI a tenth of it, in a smaller heap, at two of them: `npm run bench:objects` takes many minutes. */
const OBJECTS = Number(process.env["ROWKEEP_OBJECTS"] ?? 10_000);
const CHOSEN = (process.env["ROWKEEP_OBJECT_TYPES"] ?? "local,gcs").split(",");
const SNAPSHOTS = OBJECTS / 100;
const KEPT = SNAPSHOTS - 2;
const LIMIT_MS = Math.max(900_000, OBJECTS * 30);

/** Of V8's heap. Without a limit it uses what the machine has before it tidies. */
const HEAP_MIB = OBJECTS > 10_000 ? 64 : 40;
/** Of the whole process, with the heap's young part, code, libraries and buffers: the same for any number of objects. */
const MOST_MIB = 280;

interface Measured extends CliResult {
  readonly seconds: number;
  readonly peakMiB: number;
}

let folder: TestFolder;
let snapshots: ManySnapshots;
const rows: ObjectsRow[] = [];
beforeAll(async () => {
  folder = await createFolder();
  snapshots = await makeManySnapshots(folder, SNAPSHOTS);
});
afterAll(async () => {
  console.log([`${OBJECTS} objects:`, ...renderTable(rows)].join("\n"));
  if (process.env["ROWKEEP_OBJECTS_PAGE"] && rows.length === CHOSEN.length) {
    const { title, text } = renderObjects(rows, { objects: OBJECTS, heapMiB: HEAP_MIB });
    writeSection(page, title, text);
  }
  await folder?.[Symbol.asyncDispose]();
});

/** Runs rowkeep and looks at the highest memory that its process ever had. */
async function rowkeep(...args: string[]): Promise<Measured> {
  const startedAt = performance.now();
  let peakMiB = 0;
  let watch: NodeJS.Timeout | undefined;
  const result = await runCli([...args, "--json"], {
    home: join(folder.path, "home"),
    env: { NODE_OPTIONS: `--max-old-space-size=${HEAP_MIB}` },
    limitMs: LIMIT_MS,
    during: ({ pid }) => {
      watch = setInterval(() => {
        void readFile(`/proc/${pid}/status`, "utf8").then(
          (text) => {
            peakMiB = Math.max(peakMiB, Number(/^VmHWM:\s+(\d+)/m.exec(text)?.[1] ?? 0) / 1024);
          },
          () => undefined,
        );
      }, 20);
    },
  });
  clearInterval(watch);
  return { ...result, seconds: (performance.now() - startedAt) / 1000, peakMiB };
}

/** Ten thousand requests are too many for CI: there the newest snapshot is read, of as long a list. */
function verifiesAll(type: DestinationType): boolean {
  return OBJECTS > 10_000 || type === "local";
}

function writeJob(destination: { readonly name: string }): string {
  const path = join(folder.path, `${destination.name}.yaml`);
  const job = { version: 1, name: "shop", source: { url: "postgres://u@h/shop" }, destinations: [destination] };
  writeFileSync(path, JSON.stringify({ ...job, retention: { keepLast: KEPT } }), { mode: 0o600 });
  return path;
}

describe.each(TYPES.filter((type) => CHOSEN.includes(type)))("many small objects at a destination: %s", (type) => {
  withPrograms(PROGRAMS_OF[type], () => {
    let six: SixDestinations;
    let job: string;
    beforeAll(async () => {
      six = await startSixDestinations("explicit", [type]);
      await storeManySnapshots(snapshots, six, { type, place: "many" });
      job = writeJob(six.written(type, "many"));
    }, LIMIT_MS);
    afterAll(async () => {
      await six?.[Symbol.asyncDispose]();
    }, LIMIT_MS);

    test("are listed, verified and pruned in bounded memory", { timeout: 3 * LIMIT_MS }, async () => {
      const listed = await rowkeep("list", job);
      const verified = await rowkeep("verify", job, ...(verifiesAll(type) ? ["--all"] : []));
      const pruned = await rowkeep("prune", job);
      const all = [listed, verified, pruned];
      if (all.every(({ exitCode }) => exitCode === 0)) rows.push({ type, taken: all });

      expect(
        all.map(({ exitCode }) => exitCode),
        all.map(({ stderr }) => stderr).join(""),
      ).toEqual([0, 0, 0]);
      expect(listed.last()["snapshots"]).toHaveLength(SNAPSHOTS);
      expect(verified.last()["snapshots"]).toHaveLength(verifiesAll(type) ? SNAPSHOTS : 1);
      expect(pruned.last()["removed"]).toHaveLength(SNAPSHOTS - KEPT);
      const peaks = all.map(({ peakMiB }) => peakMiB);
      expect(Math.max(...peaks)).toBeLessThan(MOST_MIB);
      expect(Math.min(...peaks)).toBeGreaterThan(30);
    });
  });
});
