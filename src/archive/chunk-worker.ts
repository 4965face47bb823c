import { hash } from "node:crypto";
import { parentPort } from "node:worker_threads";
import { freeBytes } from "../base/free-bytes.ts";
import type { Compression } from "./chunk-codec.ts";
import type { FileSeal } from "./chunk-encryption.ts";
import { makeChunk } from "./make-chunk.ts";

/** What the thread is asked: one chunk to compress into memory that both threads see. */
export interface ChunkRequest {
  readonly raw: Uint8Array;
  readonly compression: Compression;
  /** The chunk is encrypted with it; undefined: it is not. */
  readonly seal: FileSeal | undefined;
  readonly output: Uint8Array;
}

/** What it answers: how many bytes of the output are the stored chunk, and their SHA-256. */
export type ChunkAnswer = { readonly size: number; readonly sha256: string } | { readonly failure: string };

parentPort?.on("message", (request: ChunkRequest) => {
  parentPort?.postMessage(answer(request));
});

function answer({ raw, compression, seal, output }: ChunkRequest): ChunkAnswer {
  try {
    const stored = makeChunk(raw, compression, seal);
    output.set(stored);
    const facts = { size: stored.length, sha256: hash("sha256", stored) };
    if (stored.buffer !== raw.buffer) freeBytes(stored);
    return facts;
  } catch (error) {
    return { failure: String(error) };
  }
}
