import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/global-setup.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // The servers share two cores with the tests: more workers only make every test slower.
    maxWorkers: 2,
    passWithNoTests: false,
  },
});
