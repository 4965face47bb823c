import { main } from "../../src/cli/main.ts";

// Runs the sources as they are, where bin/rowkeep.js needs a build.
await main(process.argv);
