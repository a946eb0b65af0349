import type { Database } from "../../infra/database.ts";
import { textArray } from "../../infra/postgres-array.ts";
import type { SqlClock } from "../../infra/sql-clock.ts";
import { RECORD_KEPT_MS } from "./authority.ts";
import { holdHead } from "./sql-heads.ts";

/** In the order of the index, so that it is all that is looked at. */
const RECORDS_OVER = "SELECT name, token FROM lock_record WHERE expire_ms <= $1 ORDER BY expire_ms LIMIT $2";

const ATTEMPTS_OVER = `DELETE FROM lock_attempt WHERE (name, request_id) IN (
  SELECT name, request_id FROM lock_attempt WHERE forget_ms <= $1 ORDER BY forget_ms LIMIT $2
) AND forget_ms <= $1 RETURNING 1 AS forgotten`;

/** Forgets locks that nobody has had for long, at most so many. Returns how many; their tokens are not granted again. */
export function pruneRecords(database: Database, clock: SqlClock, limit: number): Promise<number> {
  const { kind } = database;
  return database.transaction(async (tx) => {
    const overSince = (await clock(tx)) - RECORD_KEPT_MS;
    // Looked for before the head is held: there may be nothing, and everybody waits for whoever holds it.
    const found = await tx.query(RECORDS_OVER, [overSince, 1]);
    if (found.length === 0) return 0;
    const { floor } = await holdHead(kind, tx);
    const over = await tx.query<{ name: string; token: number }>(RECORDS_OVER, [overSince, limit]);
    const last = over.reduce((highest, { token }) => Math.max(highest, token), floor);
    await tx.query("UPDATE lock_head SET floor = $1 WHERE id = 1", [last]);
    const names = over.map(({ name }) => name);
    if (kind === "postgres") await tx.query("DELETE FROM lock_record WHERE name = ANY($1::text[])", [textArray(names)]);
    else {
      await tx.each(
        "DELETE FROM lock_record WHERE name = $1",
        names.map((name) => [name]),
      );
    }
    return over.length;
  });
}

/** Forgets attempts whose time is over, at most so many. Returns how many. */
export async function pruneAttempts(database: Database, clock: SqlClock, limit: number): Promise<number> {
  const forgotten = await database.write(ATTEMPTS_OVER, [await clock(database), limit]);
  return forgotten.length;
}
