import { parentPort } from "node:worker_threads";
import { summaryIn } from "./read-summary.ts";
import type { SnapshotSummary } from "./snapshot-summary.ts";

/** The bytes of plain manifests, where they are at hand, and of which snapshots they are. */
export type SummaryRequest = readonly { readonly id: string; readonly bytes: Uint8Array | undefined }[];

/** One for each manifest, in their order; undefined for one that is not as it should be. */
export type SummaryAnswer = readonly (SnapshotSummary | undefined)[];

parentPort?.on("message", (request: SummaryRequest) => {
  parentPort?.postMessage(request.map(({ id, bytes }) => bytes && summaryIn(bytes, id)));
});
