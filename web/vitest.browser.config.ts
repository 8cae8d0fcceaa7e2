// Tests of the page in a real browser against a real server: `npm run test:browser`, after the program was built.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["browser/**/*.test.ts"],
    globalSetup: "browser/setup.ts",
    environment: "node",
    // One browser and one server for all: two cores are soon full.
    fileParallelism: false,
    // These decide nothing but when to give up, and a machine may be very busy.
    testTimeout: 300_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 30_000 } },
  },
});
