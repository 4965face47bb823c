import type { Manifest } from "./manifest.ts";
import { sealJson } from "./sealed-json.ts";

/** Name of the manifest below the snapshot's folder. */
export const MANIFEST_NAME = "manifest.json";
/** Its name in an encrypted snapshot. */
export const ENCRYPTED_MANIFEST_NAME = "manifest.json.age";
/** With one of them a folder is a snapshot. */
export const MANIFEST_NAMES: readonly string[] = [MANIFEST_NAME, ENCRYPTED_MANIFEST_NAME];

/** Bytes that a reader accepts at most for a manifest. */
export const MAX_MANIFEST_BYTES = 256 * 1024 * 1024;

/** Renders a manifest as it is stored: one line of sealed JSON in UTF-8 and a newline. */
export function renderManifest(manifest: Manifest): Buffer {
  return sealJson(manifest);
}
