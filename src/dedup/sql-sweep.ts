import type { Database } from "../infra/database.ts";
import type { SqlClock } from "../infra/sql-clock.ts";

const OVER = "SELECT namespace, kind, id FROM dedup_claim WHERE expire_ms <= $1 ORDER BY expire_ms LIMIT $2";
const REMOVE = "DELETE FROM dedup_claim WHERE (namespace, kind, id) IN";
const REMOVE_RESULT = "DELETE FROM dedup_result WHERE token = $1";

/** Removes some of the claims that are forgotten, with their results. Returns how many. Instances may do so at the same time. */
export function createSqlSweep(database: Database, clock: SqlClock): (most: number) => Promise<number> {
  const { kind } = database;
  // Those whom somebody claims anew just now are left to him.
  const over = kind === "postgres" ? `${OVER} FOR UPDATE SKIP LOCKED` : OVER;
  const sql = `WITH over AS MATERIALIZED (${over}) ${REMOVE} (SELECT namespace, kind, id FROM over)
    RETURNING token, result_bytes`;
  return (most) =>
    database.transaction(async (tx) => {
      const removed = await tx.query<{ token: number; result_bytes: number | null }>(sql, [await clock(tx), most]);
      const results = removed.filter(({ result_bytes }) => result_bytes !== null).map(({ token }) => [token]);
      if (results.length > 0) await tx.each(REMOVE_RESULT, results);
      return removed.length;
    });
}
