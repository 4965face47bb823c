import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Decrypter } from "age-encryption";

// Stands for the program `age` where it is not installed: the age library's own reader behind the options that
// RECOVER.md uses.
const { values, positionals } = parseArgs({
  options: { d: { type: "boolean", short: "d" }, i: { type: "string", short: "i" }, o: { type: "string", short: "o" } },
  allowPositionals: true,
});
const decrypter = new Decrypter();
for (const line of readFileSync(values.i ?? "", "utf8").split("\n")) {
  if (line.startsWith("AGE-SECRET-KEY-")) decrypter.addIdentity(line);
}
writeFileSync(values.o ?? 1, await decrypter.decrypt(readFileSync(positionals[0] ?? "")), { flag: "wx" });
