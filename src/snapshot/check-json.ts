/** What is wrong with a text that claims to be JSON, found before it is parsed; undefined when nothing is. */
export function checkJson(text: string, maxDepth: number): string | undefined {
  // One set of keys for each open object, undefined for each open array.
  const open: (Set<string> | undefined)[] = [];
  let keyIsNext = false;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case QUOTE: {
        const end = endOfString(text, at);
        if (end < 0) return "a text does not end";
        const problem = keyIsNext ? checkKey(text.slice(at, end + 1), open.at(-1)) : undefined;
        if (problem) return problem;
        keyIsNext = false;
        at = end;
        break;
      }
      case OPEN_OBJECT:
      case OPEN_ARRAY:
        if (open.length === maxDepth) return `it is nested deeper than ${maxDepth} levels`;
        keyIsNext = text.charCodeAt(at) === OPEN_OBJECT;
        open.push(keyIsNext ? new Set() : undefined);
        break;
      case CLOSE_OBJECT:
      case CLOSE_ARRAY:
        open.pop();
        keyIsNext = false;
        break;
      case COMMA:
        keyIsNext = open.at(-1) !== undefined;
        break;
    }
  }
  return undefined;
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const BACKSLASH = 0x5c;

function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  while (end > 0 && isEscaped(text, end)) end = text.indexOf('"', end + 1);
  return end;
}

function isEscaped(text: string, at: number): boolean {
  let slashes = 0;
  while (text.charCodeAt(at - 1 - slashes) === BACKSLASH) slashes++;
  return slashes % 2 === 1;
}

function checkKey(quoted: string, keys: Set<string> | undefined): string | undefined {
  let key = quoted;
  if (quoted.includes("\\")) {
    try {
      // `"\u0061"` and `"a"` are the same key.
      key = JSON.stringify(JSON.parse(quoted));
    } catch {
      return "a key is not valid";
    }
  }
  if (key === '"__proto__"') return "a key is not allowed";
  if (keys?.has(key)) return "a key stands twice in one object";
  keys?.add(key);
  return undefined;
}
