const UNITS: Readonly<Record<string, number>> = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KIB: 1024,
  MIB: 1024 ** 2,
  GIB: 1024 ** 3,
};

/** Reads a number of bytes with its unit: `10MB`, `1.5 GiB`, `800kB`. Undefined for any other text. */
export function parseByteSize(text: string): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,6})?) ?([KMG]i?B|B)$/i.exec(text);
  const unit = UNITS[match?.[2]?.toUpperCase() ?? ""];
  return match && unit !== undefined ? Math.round(Number(match[1]) * unit) : undefined;
}
