import { freshDatabase, freshRedis } from "./fresh.ts";

/** The servers that bad input is sent to: their names, and their settings. */
export const badTopologies: readonly [string, () => Promise<Record<string, string>>][] = [
  ["embedded", async () => ({})],
  ["sql-only", async () => ({ DATABASE_URL: await freshDatabase() })],
  ["cluster", async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() })],
];
