import type { StatementSync } from "node:sqlite";
import { codeOf } from "../base/errors.ts";
import { type CacheFile, type CacheLayout, openCacheFile } from "./cache-file.ts";
import type { Home } from "./home.ts";

const LAYOUT: CacheLayout = {
  name: "read_copies",
  version: 1,
  columns: "key text primary key, stamp text not null, content text not null, read_at integer not null",
  mostRows: 500_000,
};

/** What rots keeps its size and time, so what was read is believed only for so long. */
const BELIEVED_MS = 30 * 24 * 3_600_000;

/** One copy of a snapshot: the destination's name, and where it is there. */
export interface CopyPlace {
  readonly destination: string;
  readonly prefix: string;
  readonly id: string;
}

/**
 * Remembers which copies of snapshots were read and found good, and a hash of their small objects, so that a sync reads only what
 * is new. `stamp` is what the listing told of these objects then: names, sizes, times.
 */
export class ReadCopiesStore implements Disposable {
  readonly #file: CacheFile;
  readonly #now: Date;
  readonly #get: StatementSync;

  constructor(file: CacheFile, now: Date) {
    this.#file = file;
    this.#now = now;
    this.#get = file.database.prepare(
      "select content from read_copies where key = ? and stamp = ? and read_at between ? and ?",
    );
  }

  get(place: CopyPlace, stamp: string): string | undefined {
    if (this.#file.wasEmpty) return undefined;
    const now = this.#now.getTime();
    const row = this.#get.get(keyOf(place), stamp, now - BELIEVED_MS, now);
    return row && String(row["content"]);
  }

  put(place: CopyPlace, { stamp, content }: { readonly stamp: string; readonly content: string }): void {
    this.#file.put([keyOf(place), stamp, content, this.#now.getTime()]);
  }

  /** Somebody found a copy damaged: the next sync reads it itself. */
  forget(place: CopyPlace): void {
    try {
      this.#file.database.prepare("delete from read_copies where key = ?").run(keyOf(place));
    } catch (error) {
      if (codeOf(error) !== "ERR_SQLITE_ERROR") throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

function keyOf({ destination, prefix, id }: CopyPlace): string {
  return JSON.stringify([destination, prefix, id]);
}

/** Opens the memory of this machine; see cache-file.ts for when there is none. */
export async function openReadCopiesStore(home: Home, now: Date): Promise<ReadCopiesStore | undefined> {
  const file = await openCacheFile(home, LAYOUT);
  return file && new ReadCopiesStore(file, now);
}
