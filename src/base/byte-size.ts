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

const DECIMAL_UNITS = ["kB", "MB", "GB", "TB", "PB"] as const;

/** Renders a size for people, decimal as disks and networks are sold: `812 B`, `1.5 kB`, `476 MB`. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  let value = bytes / 1000;
  let unit = 0;
  // 999.5 and more would be rounded up to four digits.
  while (value >= 999.5 && unit < DECIMAL_UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${threeDigits(value)} ${DECIMAL_UNITS[unit]}`;
}

function threeDigits(value: number): string {
  if (value >= 99.95) return value.toFixed(0);
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}
