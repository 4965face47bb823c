/**
 * Remembers which keys of a listing were given, so that the listing can be started anew and give each key once.
 * All keys are kept up to `most`. Beyond that, destinations that list in ascending order (the object stores do) need only
 * the last one; a longer listing in another order cannot be started anew, and `canRestart` says so.
 */
export class ListedKeys {
  readonly #most: number;
  #keys: Set<string> | undefined = new Set();
  #isAscending = true;
  #isRestarted = false;
  /** The last key that was given. */
  #last = "";
  /** The last key of the listing that runs. */
  #seen = "";

  constructor(most: number) {
    this.#most = most;
  }

  get canRestart(): boolean {
    return this.#keys !== undefined || this.#isAscending;
  }

  /** Says that the listing begins again. */
  restart(): void {
    this.#isRestarted = true;
    this.#seen = "";
  }

  /** Tells whether a key must be given, and remembers it; undefined when the order broke, so that nobody can know. */
  admit(key: string): boolean | undefined {
    if (this.#keys?.has(key)) return false;
    if (this.#keys === undefined && this.#isRestarted) {
      if (key <= this.#seen) return undefined;
      this.#seen = key;
      if (key <= this.#last) return false;
    }
    if (key <= this.#last) this.#isAscending = false;
    this.#last = key;
    this.#seen = key;
    this.#keys?.add(key);
    if (this.#keys && this.#keys.size > this.#most) this.#keys = undefined;
    return true;
  }
}
