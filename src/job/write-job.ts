import { randomBytes } from "node:crypto";
import { link, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import { makeFolders } from "../base/make-folders.ts";
import type { Home } from "./home.ts";

/**
 * Writes a file of the home whole or not at all, closed to other users. Without `replace` it fails with kind `refused`
 * when the file is there already.
 */
export async function writeWhole(
  path: string,
  text: string,
  { replace }: { readonly replace: boolean },
): Promise<void> {
  const unfinished = `${path}.${randomBytes(4).toString("hex")}.in-progress`;
  try {
    await makeFolders(dirname(path));
    await using file = await open(unfinished, "wx", 0o600);
    await file.writeFile(text);
    await file.sync();
    if (replace) await rename(unfinished, path);
    else await link(unfinished, path);
  } catch (cause) {
    if (codeOf(cause) === "EEXIST") {
      throw new OperationalError(`cannot write ${path}: it exists already`, {
        kind: "refused",
        code: "exists",
        hint: "Give --force to replace it.",
      });
    }
    throw new OperationalError(`cannot write ${path}: ${messageOf(cause)}`, { kind: "job", code: "unwritable", cause });
  } finally {
    await rm(unfinished, { force: true });
  }
}

/** Moves the password of a URL into a secret file of the home and gives the URL that refers to nothing secret. */
export async function hidePassword(
  home: Home,
  job: string,
  url: string,
  options: { readonly replace: boolean },
): Promise<{ readonly url: string; readonly passwordFile: string | undefined }> {
  const parsed = new URL(url);
  if (parsed.password === "") return { url, passwordFile: undefined };
  const passwordFile = join(home.secrets, `${job}.password`);
  await writeWhole(passwordFile, `${decodeURIComponent(parsed.password)}\n`, options);
  parsed.password = "";
  return { url: parsed.href, passwordFile };
}
