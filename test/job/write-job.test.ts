import { expect, test } from "vitest";
import { writeWhole } from "../../src/job/write-job.ts";

test.runIf(process.platform === "linux")(
  "a job that cannot be written anywhere is told, not tried for ever",
  async () => {
    const writing = writeWhole("/proc/rowkeep/jobs/shop.yaml", "", { replace: false });

    await expect(writing).rejects.toMatchObject({ kind: "job", code: "unwritable" });
  },
);
