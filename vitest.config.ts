import { defineConfig } from "vitest/config";

// Real servers and real processes on machines that may be slow and shared: a timeout here only ends what would never end.
const shared = { pool: "forks", testTimeout: 120_000, hookTimeout: 120_000, teardownTimeout: 60_000 } as const;

// These start servers of their own.
const e2e = ["test/e2e/**/*.test.ts", "test/deploy/**/*.test.ts"];
// These start processes by the dozen, kill them and put them under load: like everything four files at a time, since they mostly wait.
const chaos = ["test/chaos/**/*.test.ts"];

export default defineConfig({
  test: {
    globalSetup: ["test/support/global-setup.ts"],
    maxWorkers: 4,
    projects: [
      {
        test: {
          ...shared,
          name: "unit",
          include: ["{src,test,sdk/typescript,bench,scripts}/**/*.test.ts"],
          exclude: ["**/node_modules/**", "**/dist/**", ...e2e, ...chaos],
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: { ...shared, name: "e2e", include: e2e, sequence: { groupOrder: 1 } },
      },
      {
        test: { ...shared, name: "chaos", include: chaos, sequence: { groupOrder: 2 } },
      },
    ],
  },
});
