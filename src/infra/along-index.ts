import type { Database, SqlRow, SqlSession, SqlValue } from "./database.ts";

const NOTHING_ELSE = ["seqscan", "bitmapscan", "sort"]
  .map((way) => `set_config('enable_${way}', 'off', true) AS ${way}`)
  .join(", ");

/**
 * In what is left of the transaction statements take rows from indexes, in their order. Postgres, which may take many for few or
 * few for many, would now and then rather gather all rows; for SQLite a statement that tempts it has to name the index.
 */
export async function keepToIndexes(kind: Database["kind"], tx: SqlSession): Promise<void> {
  if (kind === "postgres") await tx.query(`SELECT ${NOTHING_ELSE}`);
}

/** One reading statement that takes the first rows of an index, in its order. */
export function alongIndex<Row extends SqlRow>(
  database: Pick<Database, "kind" | "query" | "transaction">,
  sql: string,
  params: readonly SqlValue[],
): Promise<Row[]> {
  if (database.kind === "sqlite") return database.query<Row>(sql, params);
  return database.transaction(async (tx) => {
    await keepToIndexes(database.kind, tx);
    return tx.query<Row>(sql, params);
  });
}
