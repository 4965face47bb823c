import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Files that take longest, the longest first: one that began last would keep one core busy alone. */
const LONG = [
  "test/usecases/incremental-history.test.ts",
  "test/usecases/encrypted-history.test.ts",
  "test/cli/fan-out.test.ts",
  "test/cli/killed-uploads.test.ts",
  "test/usecases/server-hash-history.test.ts",
  "test/cli/incremental.test.ts",
  "test/cli/many-objects.test.ts",
  "test/usecases/restore-rows.test.ts",
  "test/cli/restore.test.ts",
  "test/usecases/drill-snapshot.test.ts",
  "test/drivers/postgres-source.test.ts",
];

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification) => {
      const at = LONG.findIndex((name) => moduleId.endsWith(name));
      return at < 0 ? LONG.length : at;
    };
    // What takes how long on this machine is known after the first run.
    const rest = await super.sort(files);
    return rest.toSorted((left, right) => place(left) - place(right));
  }
}
