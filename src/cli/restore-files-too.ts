import { resolve } from "node:path";
import { OperationalError } from "../base/errors.ts";
import { checkFilePlaces, type RestoreFilesOptions, restoreFiles } from "../usecases/restore-files.ts";
import type { Invocation } from "./command.ts";
import { confirm } from "./confirm.ts";
import type { CliContext } from "./context.ts";
import { readText } from "./option-values.ts";
import { renderRowsOnly, type ShownRestore } from "./render/restore.ts";

/** The files of a snapshot, which are put back behind its rows. */
export interface FilesToRestore {
  /** Fails where a path of the snapshot or a link in its way would stop it: before anything is changed. */
  check(): Promise<void>;
  /** Asks where files are replaced in place; the answer holds from then on. */
  confirm(): Promise<boolean>;
  /** Gives how many there were; a plan puts none back. When it fails, it warns that the rows were restored already. */
  restore(rows: ShownRestore): Promise<number>;
}

/** Gives the files of a snapshot where the options ask for them. */
export function filesToRestore(
  context: CliContext,
  { reader, options, report }: Pick<RestoreFilesOptions, "reader" | "report"> & Pick<Invocation, "options">,
): FilesToRestore | undefined {
  const folderOption = readText(options.filesTo);
  if (folderOption === undefined && options.filesInPlace !== true) return undefined;
  const folder = folderOption && resolve(context.cwd, folderOption);
  let isConfirmed = folder !== undefined || options.yes === true;

  async function confirmOnce(): Promise<boolean> {
    const message = "Replace the files of the snapshot where they were?";
    isConfirmed ||= await confirm(context, { message, action: "restore files in place" });
    return isConfirmed;
  }

  return {
    check: () => checkFilePlaces({ reader, folder }),
    confirm: confirmOnce,
    async restore(rows) {
      if (options.plan === true) return reader.manifest.files.length;
      try {
        // Not asked yet where no row had to be changed.
        if (!(await confirmOnce())) {
          throw new OperationalError("cannot restore the files: you said no", {
            kind: "refused",
            code: "not-confirmed",
          });
        }
        return await restoreFiles({ reader, folder, signal: context.signal, report });
      } catch (error) {
        context.output.warn(renderRowsOnly(rows));
        throw error;
      }
    },
  };
}
