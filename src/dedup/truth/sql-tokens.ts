import type { Database, SqlSession } from "../../infra/database.ts";

const FROM_SEQUENCE = "SELECT nextval('dedup_token') AS token FROM generate_series(1, $1::bigint)";
const FROM_ROW = "UPDATE dedup_token SET last = last + $1 WHERE id = 1 RETURNING last";

/**
 * So many tokens, each larger than all that were given before it was asked for, of whatever claim: so a token of a claim that was
 * forgotten is never that of another one.
 */
export async function drawTokens(kind: Database["kind"], tx: SqlSession, count: number): Promise<number[]> {
  if (count === 0) return [];
  if (kind === "postgres") {
    const rows = await tx.query<{ token: number }>(FROM_SEQUENCE, [count]);
    return rows.map(({ token }) => token);
  }
  const [row] = await tx.query<{ last: number }>(FROM_ROW, [count]);
  if (row === undefined) throw new Error("dedup_token has lost its row");
  return Array.from({ length: count }, (_, at) => row.last - count + 1 + at);
}
