import { resolve } from "node:path";
import { OperationalError } from "../../base/errors.ts";
import { createKey } from "../../usecases/create-key.ts";
import type { CommandAction } from "../command.ts";
import { readText } from "../option-values.ts";

/** Makes a key pair: the secret half into a file of its own, with a recovery kit to print beside it. */
export const keyCreate: CommandAction = async (context, { args, options }) => {
  const file = String(args[0] ?? "rowkeep.key");
  const kitFile = readText(options.kit);
  if (file === "-" || kitFile === "-") throw needsFile();
  const path = resolve(context.cwd, file);
  const kit = options.kit === false ? undefined : resolve(context.cwd, kitFile ?? `${path}.kit.txt`);
  const created = await createKey({ path, kitPath: kit, now: context.now() });
  context.output.result({ ...created }, () => {
    const { output } = context;
    output.line(`public key: ${created.recipient}`);
    output.line(`key id:     ${created.keyId}`);
    output.line(`secret key: ${created.file}`);
    if (created.kit) output.line(`to print:   ${created.kit}`);
    output.line();
    output.line("In the job file:");
    output.line(`  encryption: { recipients: ["${created.recipient}"] }`);
    if (created.kit) output.note("Print the recovery kit, keep it apart from the backups, and delete the file.");
    output.note("Without the secret key nothing can be restored: keep more than one copy.");
  });
  return undefined;
};

function needsFile(): OperationalError {
  return new OperationalError("cannot write a secret key to stdout: a terminal or a log would keep it", {
    kind: "usage",
    code: "needs-file",
    hint: "Name a file, like ~/.rowkeep.key.",
  });
}
