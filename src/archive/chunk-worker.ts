import { hash } from "node:crypto";
import { parentPort } from "node:worker_threads";
import { type Compression, compressChunk } from "./chunk-codec.ts";

/** What the thread is asked: one chunk to compress into memory that both threads see. */
export interface ChunkRequest {
  readonly raw: Uint8Array;
  readonly compression: Compression;
  readonly output: Uint8Array;
}

/** What it answers: how many bytes of the output are the stored chunk, and their SHA-256. */
export type ChunkAnswer = { readonly size: number; readonly sha256: string } | { readonly failure: string };

parentPort?.on("message", ({ raw, compression, output }: ChunkRequest) => {
  parentPort?.postMessage(answer(raw, compression, output));
});

function answer(raw: Uint8Array, compression: Compression, output: Uint8Array): ChunkAnswer {
  try {
    const stored = compressChunk(raw, compression);
    output.set(stored);
    return { size: stored.length, sha256: hash("sha256", stored) };
  } catch (error) {
    return { failure: String(error) };
  }
}
