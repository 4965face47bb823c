import type { ChunkRef, Manifest, SnapshotReference } from "./manifest.ts";

/**
 * Turns chunks of one earlier snapshot, and of those that it refers to, into chunks of a new one, and keeps the list of what
 * the new one needs.
 */
export class ReferenceBook {
  readonly #base: Manifest;
  readonly #references: SnapshotReference[] = [];
  readonly #places = new Map<number | undefined, number>();

  constructor(base: Manifest) {
    this.#base = base;
  }

  /** Gives the chunk as the new snapshot names it. */
  adopt(chunk: ChunkRef): ChunkRef {
    let snapshot = this.#places.get(chunk.snapshot);
    if (snapshot === undefined) {
      snapshot = this.#references.push(this.#referenceOf(chunk.snapshot)) - 1;
      this.#places.set(chunk.snapshot, snapshot);
    }
    return { ...chunk, snapshot };
  }

  /** Gives a chunk that was adopted as the base names it. */
  inBase(chunk: ChunkRef): ChunkRef {
    for (const [snapshot, own] of this.#places) if (own === chunk.snapshot) return { ...chunk, snapshot };
    throw new RangeError("the chunk was not adopted");
  }

  /** The snapshots of all chunks that were adopted. */
  get references(): readonly SnapshotReference[] {
    return this.#references;
  }

  #referenceOf(index: number | undefined): SnapshotReference {
    const { id, compression, encryption, volumes, references } = this.#base;
    if (index === undefined) {
      return { id, codec: compression.codec, ...(encryption ? { encryption } : {}), volumes };
    }
    const reference = references?.[index];
    if (!reference) throw new RangeError("the chunk is not one of the base");
    return reference;
  }
}
