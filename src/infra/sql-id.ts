import type { Database } from "./database.ts";

const FIRST_MIGRATION = "SELECT applied_at FROM holdfast_migration ORDER BY version LIMIT 1";

/** Names what is in this database: a new one, though it be in the same place, has another name. */
export async function databaseIdOf(database: Pick<Database, "query">): Promise<string> {
  const [row] = await database.query<{ applied_at: number }>(FIRST_MIGRATION);
  return String(row?.applied_at ?? "");
}
