import { createHash, hash } from "node:crypto";
import { TarWalk } from "../archive/tar-walk.ts";
import { formatCount, formatPlural } from "../base/counts.ts";
import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import type { ChunkPlace } from "./chunk-places.ts";
import type { Volume } from "./manifest.ts";
import { type ChunkContent, readChunk, readRange, type StoredObject } from "./open-snapshot-reader.ts";

/** One thing that is wrong. */
export interface Problem {
  /** Name of the object: `volume-0001.tar`. */
  readonly volume: string;
  /** Which chunk, for people; empty when it concerns the whole object. */
  readonly chunk: string;
  readonly problem: string;
}

export interface VolumeCheck {
  /** How the chunks are encoded. */
  readonly content: ChunkContent;
  readonly volume: Volume;
  readonly object: StoredObject;
  /** The chunks to check, in the order of their offsets. */
  readonly chunks: readonly ChunkPlace[];
  readonly signal: AbortSignal;
}

/**
 * Reads a whole volume once and checks its size, its SHA-256, its tar structure and all its chunks.
 * Problems are given, not thrown; only an abort, a mistake in the program, a destination that does not answer and
 * `archived` are thrown: that says nothing about the bytes.
 */
export async function verifyVolume(check: VolumeCheck): Promise<readonly Problem[]> {
  const { volume, object, signal } = check;
  const whole = createHash("sha256");
  const tar = new TarWalk();
  const capture = new ChunkCapture(check);
  const problems: Problem[] = [];
  const say = (problem: string) => problems.push({ volume: volume.name, chunk: "", problem });
  let size = 0;
  try {
    for await (const part of object.destination.get(object.key, { size: volume.size, signal })) {
      size += part.length;
      if (size > volume.size) break;
      whole.update(part);
      tar.push(part);
      await capture.push(part);
    }
  } catch (error) {
    signal.throwIfAborted();
    if (!isVerdict(error)) throw error;
    say(codeOf(error) === "not-found" ? "it is missing" : messageOf(error));
    return problems;
  }
  if (size !== volume.size) say(`it has ${size > volume.size ? "more" : size} bytes, not ${volume.size}`);
  else if (whole.digest("hex") !== volume.sha256) say("its SHA-256 is not the one recorded");
  const broken = tar.finish();
  if (broken !== undefined) say(broken);
  for (const chunk of check.chunks) {
    if (broken === undefined && tar.entries.get(chunk.ref.offset) !== chunk.ref.size) {
      problems.push({ volume: volume.name, chunk: chunk.label, problem: "it is not an entry of the volume" });
    }
  }
  return [...problems, ...capture.finish()];
}

/** Reads a whole object once and checks its size and SHA-256, whatever is in it. Problems are given, not thrown. */
export async function verifyObject(
  check: Pick<VolumeCheck, "volume" | "object" | "signal">,
): Promise<readonly Problem[]> {
  const { volume, object, signal } = check;
  const whole = createHash("sha256");
  let size = 0;
  try {
    for await (const part of object.destination.get(object.key, { size: volume.size, reuse: true, signal })) {
      size += part.length;
      if (size > volume.size) break;
      whole.update(part);
    }
  } catch (error) {
    signal.throwIfAborted();
    if (!isVerdict(error)) throw error;
    const problem = codeOf(error) === "not-found" ? "it is missing" : messageOf(error);
    return [{ volume: volume.name, chunk: "", problem }];
  }
  const problem =
    size !== volume.size
      ? `it has ${size > volume.size ? "more" : size} bytes, not ${volume.size}`
      : whole.digest("hex") === volume.sha256
        ? undefined
        : "its SHA-256 is not the one recorded";
  return problem === undefined ? [] : [{ volume: volume.name, chunk: "", problem }];
}

/** Asks for the size of a stored object, without reading it. Problems are given, not thrown. */
export async function verifySize({
  volume,
  object,
  signal,
}: Pick<VolumeCheck, "volume" | "object" | "signal">): Promise<readonly Problem[]> {
  const say = (problem: string) => [{ volume: volume.name, chunk: "", problem }];
  try {
    const info = await object.destination.stat(object.key, { signal });
    if (info === undefined) return say("it is missing");
    return info.size === volume.size ? [] : say(`it has ${info.size} bytes, not ${volume.size}`);
  } catch (error) {
    signal.throwIfAborted();
    if (!isVerdict(error)) throw error;
    return say(error.message);
  }
}

/** Reads the given chunks only, each by its range, and the size of the volume. */
export async function verifySample(check: VolumeCheck): Promise<readonly Problem[]> {
  const { object, volume, signal } = check;
  const problems: Problem[] = [];
  const attempt = async (chunk: string, act: () => Promise<string | undefined>) => {
    try {
      const problem = await act();
      if (problem !== undefined) problems.push({ volume: volume.name, chunk, problem });
    } catch (error) {
      signal.throwIfAborted();
      if (!isVerdict(error)) throw error;
      problems.push({ volume: volume.name, chunk, problem: error.message });
    }
  };
  problems.push(...(await verifySize(check)));
  if (problems.length > 0) return problems;
  for (const chunk of check.chunks) {
    await attempt(chunk.label, async () => {
      const { offset, size } = chunk.ref;
      return checkChunk(check.content, chunk, await readRange(object, offset, offset + size, signal));
    });
  }
  return problems;
}

/** Tells an error that says something about the stored bytes from one that only says that they could not be asked for. */
function isVerdict(error: unknown): error is OperationalError {
  return error instanceof OperationalError && !["unreachable", "busy", "archived"].includes(error.code);
}

/** Says what is wrong with the stored bytes of a chunk. */
async function checkChunk(
  content: ChunkContent,
  { ref, countsLines }: ChunkPlace,
  stored: Buffer,
): Promise<string | undefined> {
  if (hash("sha256", stored) !== ref.sha256) return "its SHA-256 is not the one recorded";
  let raw: Buffer;
  try {
    raw = await readChunk(content, stored, ref.rawSize);
  } catch (error) {
    return messageOf(error);
  }
  const rows = countsLines ? countLines(raw) : ref.rows;
  return rows === ref.rows
    ? undefined
    : `it holds the ends of ${formatPlural(rows, "row")}, not of ${formatCount(ref.rows)}`;
}

function countLines(raw: Buffer): number {
  let lines = 0;
  for (let at = raw.indexOf(10); at >= 0; at = raw.indexOf(10, at + 1)) lines++;
  return lines;
}

/** Cuts chunks out of a stream of bytes by their offsets and checks each one; keeps one chunk at a time. */
class ChunkCapture {
  readonly #check: VolumeCheck;
  readonly #problems: Problem[] = [];
  #next = 0;
  #position = 0;
  #buffer: Buffer | undefined;

  constructor(check: VolumeCheck) {
    this.#check = check;
  }

  async push(part: Uint8Array): Promise<void> {
    const end = this.#position + part.length;
    for (let chunk = this.#check.chunks[this.#next]; chunk; chunk = this.#check.chunks[this.#next]) {
      const { offset, size } = chunk.ref;
      if (offset >= end && size > 0) break;
      this.#buffer ??= Buffer.allocUnsafeSlow(size);
      const from = Math.max(offset, this.#position);
      const to = Math.min(offset + size, end);
      if (to > from) this.#buffer.set(part.subarray(from - this.#position, to - this.#position), from - offset);
      if (offset + size > end) break;
      await this.#finishChunk(chunk, this.#buffer);
    }
    this.#position = end;
  }

  finish(): readonly Problem[] {
    for (const chunk of this.#check.chunks.slice(this.#next)) this.#say(chunk, "it is beyond the end of the volume");
    return this.#problems;
  }

  async #finishChunk(chunk: ChunkPlace, stored: Buffer): Promise<void> {
    const problem = await checkChunk(this.#check.content, chunk, stored);
    if (problem !== undefined) this.#say(chunk, problem);
    this.#next++;
    this.#buffer = undefined;
  }

  #say(chunk: ChunkPlace, problem: string): void {
    this.#problems.push({ volume: this.#check.volume.name, chunk: chunk.label, problem });
  }
}
