import { isScalar, isSeq, parseDocument, visit } from "yaml";
import { looksSecret } from "./secrets.ts";

const HIDDEN = "***";
/** Such a value says where the secret is, not what it is. */
const REFERENCE = /^(?:\$\{env:[A-Za-z_][A-Za-z0-9_]*\}|(?:file|cmd|keychain):.*)$/s;

/** Gives the same record of a job with `***` for every secret that is written out; references stay what they are. */
export function hideSecrets<T>(fields: T): T {
  return hideIn(fields, "") as T;
}

function hideIn(value: unknown, field: string): unknown {
  if (typeof value === "string") return isWrittenOut(field, value) ? HIDDEN : value;
  if (Array.isArray(value)) return value.map((item) => hideIn(item, field));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, hideIn(item, name)]));
}

/** The same for the text of a job file; everything else in it stays as it is written. */
export function hideSecretsInText(text: string): string {
  const places: { readonly from: number; readonly to: number }[] = [];
  const hide = (field: string, node: unknown) => {
    if (isSeq(node)) for (const item of node.items) hide(field, item);
    if (!isScalar(node) || !node.range || !isWrittenOut(field, String(node.value))) return;
    const [from, end] = node.range;
    // A block of several lines ends with its newline, which the next field needs.
    places.push({ from, to: from + text.slice(from, end).trimEnd().length });
  };
  visit(parseDocument(text), {
    Pair(_, { key, value }) {
      hide(isScalar(key) ? String(key.value) : "", value);
    },
  });
  return places
    .sort((left, right) => right.from - left.from)
    .reduce((shown, { from, to }) => `${shown.slice(0, from)}"${HIDDEN}"${shown.slice(to)}`, text);
}

function isWrittenOut(field: string, value: string): boolean {
  return isHidden(field) && value !== "" && !REFERENCE.test(value);
}

/** Addresses of notifications carry their token in the path. */
function isHidden(field: string): boolean {
  return looksSecret(field) || ["identity", "webhook", "healthchecks"].includes(field);
}
