import { resolve } from "node:path";
import { createKey } from "../../usecases/create-key.ts";
import type { CommandAction } from "../command.ts";
import { readText } from "../option-values.ts";

/** Makes a key pair: the secret half into a file of its own, with a recovery kit to print beside it. */
export const keyCreate: CommandAction = async (context, { args, options }) => {
  const path = resolve(context.cwd, String(args[0] ?? "rowkeep.key"));
  const kit = options.kit === false ? undefined : resolve(context.cwd, readText(options.kit) ?? `${path}.kit.txt`);
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
