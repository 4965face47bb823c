#!/usr/bin/env node
const major = Number(process.versions.node.split(".")[0]);
if (major < 24) {
  process.stderr.write(`error: cannot start rowkeep: Node ${process.versions.node} runs, 24 or newer is needed\n`);
  process.exitCode = 2;
} else {
  const { main } = await import("../dist/cli/main.js");
  await main(process.argv);
}
