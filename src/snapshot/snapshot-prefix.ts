import { hash } from "node:crypto";

/** Renders the folder of a job's snapshots at every destination: plain names stay as they are. */
export function jobFolder(job: string): string {
  return keySegment(job);
}

/** Renders the folder of the snapshots of one database of a job: `shop/shop`. */
export function snapshotPrefix(job: string, database: string): string {
  return `${keySegment(job)}/${keySegment(database)}`;
}

/** Different names never share a segment: a name that cannot stand as it is gets a mark made from all of it. */
function keySegment(name: string): string {
  const plain = name.replace(/[^0-9A-Za-z._-]+/g, "_");
  const isPlain = plain === name && /^[0-9A-Za-z]/.test(name) && name.length <= 80 && !name.endsWith(".in-progress");
  return isPlain ? name : `db_${plain.replace(/\.in-progress$/, "").slice(0, 60)}-${hash("sha256", name).slice(0, 10)}`;
}
