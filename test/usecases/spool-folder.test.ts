import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { findHome } from "../../src/job/home.ts";
import type { Job } from "../../src/job/read-job.ts";
import { makeSpoolFolder } from "../../src/usecases/spool-folder.ts";

test("a spool that cannot be made at the destination is that destination's failure, not one of the home", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, "file"), "");
  const destinations: Job["destinations"] = [{ type: "local", name: "here", path: join(folder, "file", "backups") }];
  const job: Job = {
    version: 1,
    name: "shop",
    source: { url: "postgres://me@127.0.0.1:1/shop" },
    destinations,
    folder,
    path: join(folder, "shop.yaml"),
  };

  const making = makeSpoolFolder(job, findHome({ homeFlag: join(folder, "home"), env: {} }));

  await expect(making).rejects.toMatchObject({
    kind: "destination",
    message: "cannot write to here: a part of its path is not a folder",
    hint: undefined,
  });
});
