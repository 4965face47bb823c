import { main } from "../../src/cli/main.ts";

// What tests start instead of bin/rowkeep.js, which needs a build.
await main(process.argv);
