/** What is wrong with a text that claims to be JSON, found before it is parsed; undefined when nothing is. */
export function checkJson(text: string, maxDepth: number): string | undefined {
  // The keys of each open object, undefined for each open array.
  const open: (ObjectKeys | undefined)[] = [];
  const keysByDepth: ObjectKeys[] = [];
  let keyIsNext = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    // Most of what is no string is digits.
    if (code >= DIGIT_0 && code <= COLON) continue;
    switch (code) {
      case QUOTE: {
        const end = endOfString(text, at);
        if (end < 0) return "a text does not end";
        const problem = keyIsNext ? open[open.length - 1]?.add(text, at, end + 1) : undefined;
        if (problem) return problem;
        keyIsNext = false;
        at = end;
        break;
      }
      case OPEN_OBJECT:
      case OPEN_ARRAY:
        if (open.length === maxDepth) return `it is nested deeper than ${maxDepth} levels`;
        keyIsNext = code === OPEN_OBJECT;
        open.push(keyIsNext ? beginObject(keysByDepth, open.length) : undefined);
        break;
      case CLOSE_OBJECT:
      case CLOSE_ARRAY:
        open.pop();
        keyIsNext = false;
        break;
      case COMMA:
        keyIsNext = open[open.length - 1] !== undefined;
        break;
    }
  }
  return undefined;
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const DIGIT_0 = 0x30;
const COLON = 0x3a;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const BACKSLASH = 0x5c;

function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  while (end > 0 && text.charCodeAt(end - 1) === BACKSLASH && isEscaped(text, end)) end = text.indexOf('"', end + 1);
  return end;
}

function isEscaped(text: string, at: number): boolean {
  let slashes = 0;
  while (text.charCodeAt(at - 1 - slashes) === BACKSLASH) slashes++;
  return slashes % 2 === 1;
}

/** From so many keys on a set is faster than comparing each with each. */
const MANY_KEYS = 32;

/** Nearly all objects of a manifest are small and have the same few keys: their memory is used again. */
function beginObject(keysByDepth: ObjectKeys[], depth: number): ObjectKeys {
  const keys = keysByDepth[depth] ?? new ObjectKeys();
  keysByDepth[depth] = keys;
  keys.clear();
  return keys;
}

/** The keys of one object, by where they stand in the text: a string for each would be most of the work. */
class ObjectKeys {
  #count = 0;
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  readonly #hashes: number[] = [];
  /** Instead of them, once there are many keys, or one that is not written as it is. */
  #set: Set<string> | undefined;

  clear(): void {
    this.#count = 0;
    this.#set = undefined;
  }

  /** Adds the key that stands with its quotes from `start` to `end`; tells what is wrong with it. */
  add(text: string, start: number, end: number): string | undefined {
    let hash = end - start;
    let isEscaped = false;
    for (let at = start + 1; at < end - 1; at++) {
      const code = text.charCodeAt(at);
      hash = (Math.imul(hash, 31) + code) | 0;
      isEscaped ||= code === BACKSLASH;
    }
    if (isEscaped || this.#set || this.#count === MANY_KEYS) return this.#addToSet(text, text.slice(start, end));
    if (end - start === PROTO.length && text.startsWith(PROTO, start)) return "a key is not allowed";
    for (let index = 0; index < this.#count; index++)
      if (this.#hashes[index] === hash && this.#keyAt(text, index) === text.slice(start, end))
        return "a key stands twice in one object";
    this.#starts[this.#count] = start;
    this.#ends[this.#count] = end;
    this.#hashes[this.#count++] = hash;
    return undefined;
  }

  #keyAt(text: string, index: number): string {
    return text.slice(this.#starts[index], this.#ends[index]);
  }

  #addToSet(text: string, quoted: string): string | undefined {
    this.#set ??= new Set(Array.from({ length: this.#count }, (_, index) => this.#keyAt(text, index)));
    let key = quoted;
    if (quoted.includes("\\")) {
      try {
        // `"\u0061"` and `"a"` are the same key.
        key = JSON.stringify(JSON.parse(quoted));
      } catch {
        return "a key is not valid";
      }
    }
    if (key === PROTO) return "a key is not allowed";
    if (this.#set.has(key)) return "a key stands twice in one object";
    this.#set.add(key);
    return undefined;
  }
}

const PROTO = '"__proto__"';
