/**
 * Numbers for people, the same in every locale. Sizes are decimal, as disks and networks are sold and as `ls --si`
 * prints them: 1 MB is 1,000,000 bytes.
 */

import { formatBytes } from "../base/byte-size.ts";
import { formatCount, formatPlural } from "../base/counts.ts";

export { formatBytes, formatCount, formatPlural };

/** Renders a duration: `850 ms`, `11.2 s`, `3 min 05 s`, `2 h 03 min`, `4 d 02 h`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${twoDigits(seconds % 60)} s`;
  const minutes = Math.round(ms / 60_000);
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${twoDigits(minutes % 60)} min`;
  const hours = Math.round(ms / 3_600_000);
  return `${Math.floor(hours / 24)} d ${twoDigits(hours % 24)} h`;
}

/** Renders a speed: `120 MB/s`. */
export function formatRate(bytes: number, ms: number): string {
  return `${formatBytes(ms > 0 ? (bytes * 1000) / ms : 0)}/s`;
}

/** Renders rows per second: `640,000 rows/s`. */
export function formatRowRate(rows: number, ms: number): string {
  return `${formatCount(ms > 0 ? (rows * 1000) / ms : 0)} rows/s`;
}

/** Renders an instant in UTC: `2026-11-21 02:00:00Z`. */
export function formatTime(at: Date | string): string {
  const date = typeof at === "string" ? new Date(at) : at;
  if (Number.isNaN(date.getTime())) return String(at);
  return `${date.toISOString().slice(0, 19).replace("T", " ")}Z`;
}

/** Renders the day of a time in UTC, `2026-11-21`. */
export function formatDay(at: string): string {
  return formatTime(at).slice(0, 10);
}

function twoDigits(value: number): string {
  return String(value).padStart(2, "0");
}
