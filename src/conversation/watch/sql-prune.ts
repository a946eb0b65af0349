import type { Database } from "../../infra/database.ts";

/**
 * Forgets the oldest changes, at most so many, as long as they are from before a time. Always the oldest first: of those that are
 * kept, none after the first is missing, which is how watchers know whether any was. Returns how many are forgotten.
 */
export async function pruneChanges(
  database: Pick<Database, "query" | "write">,
  beforeUs: number,
  limit: number,
): Promise<number> {
  // By the clocks of several instances, the times need not be in order.
  const oldest = await database.query<{ seq: number; changed_us: number }>(
    "SELECT seq, changed_us FROM conversation_change ORDER BY seq LIMIT $1",
    [limit],
  );
  const kept = oldest.findIndex(({ changed_us }) => changed_us >= beforeUs);
  const last = (kept === -1 ? oldest : oldest.slice(0, kept)).at(-1);
  if (last === undefined) return 0;
  const forgotten = await database.write("DELETE FROM conversation_change WHERE seq <= $1 RETURNING seq", [last.seq]);
  return forgotten.length;
}
