/**
 * Says what is wrong with a value and where (`.tables[3].rows is not a whole number …`); undefined when it is right.
 * Hand-made because it checks a manifest of 10 MB in a fraction of the time that a schema library needs to load.
 */
export type Shape = (value: unknown) => string | undefined;

export function text(maxLength: number, pattern?: RegExp): Shape {
  return (value) => {
    if (typeof value !== "string") return " is not a text";
    if (value.length > maxLength) return ` is longer than ${maxLength} characters`;
    return pattern && !pattern.test(value) ? " is not of the form that it must have" : undefined;
  };
}

export function integer(min = 0, max = Number.MAX_SAFE_INTEGER): Shape {
  return (value) =>
    Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max
      ? undefined
      : ` is not a whole number from ${min} to ${max}`;
}

export function boolean(value: unknown): string | undefined {
  return typeof value === "boolean" ? undefined : " is neither true nor false";
}

export function oneOf(...allowed: readonly unknown[]): Shape {
  return (value) => (allowed.includes(value) ? undefined : ` is not one of ${allowed.join(", ")}`);
}

/** May be missing; `null` is not missing. */
export function optional(shape: Shape): Shape {
  return (value) => (value === undefined ? undefined : shape(value));
}

export function list(shape: Shape, maxLength = 10_000_000): Shape {
  return (value) => {
    if (!Array.isArray(value)) return " is not a list";
    if (value.length > maxLength) return ` has more than ${maxLength} items`;
    for (let index = 0; index < value.length; index++) {
      const problem = shape(value[index]);
      if (problem !== undefined) return `[${index}]${problem}`;
    }
    return undefined;
  };
}

/** An object with at least these fields; others, of later versions, are left alone. */
export function record(fields: Readonly<Record<string, Shape>>): Shape {
  const shapes = Object.entries(fields);
  return (value) => {
    if (!isObject(value)) return " is not an object";
    for (const [name, shape] of shapes) {
      const problem = shape(Object.hasOwn(value, name) ? value[name] : undefined);
      if (problem !== undefined) return `.${name}${problem}`;
    }
    return undefined;
  };
}

/** An object whose keys and values are all of one form. */
export function dictionary(key: RegExp, shape: Shape, maxLength: number): Shape {
  return (value) => {
    if (!isObject(value)) return " is not an object";
    const entries = Object.entries(value);
    if (entries.length > maxLength) return ` has more than ${maxLength} fields`;
    for (const [name, item] of entries) {
      if (!key.test(name)) return " has a field whose name is not of the form that it must have";
      const problem = shape(item);
      if (problem !== undefined) return `.${name}${problem}`;
    }
    return undefined;
  };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
