import { readFileSync, writeFileSync } from "node:fs";

/** Replaces one `## ` section of a page, or its beginning (`undefined`), and keeps what other scripts wrote. */
export function writeSection(path: string, title: string | undefined, text: string): void {
  const [head = "", ...sections] = readFileSync(path, "utf8").split(/^(?=## )/m);
  if (title === undefined) {
    writeFileSync(path, [text.trimEnd(), ...sections.map((section) => section.trimEnd())].join("\n\n").concat("\n"));
    return;
  }
  const isIt = (section: string) => section.startsWith(`## ${title}\n`);
  const others = sections.filter((section) => !isIt(section));
  const page = [head, ...others, `## ${title}\n\n${text}`].map((part) => part.trimEnd()).join("\n\n");
  writeFileSync(path, `${page}\n`);
}
