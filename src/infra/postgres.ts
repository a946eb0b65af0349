import { setTimeout as delay } from "node:timers/promises";
import type { Database, SqlRow, SqlSession, SqlStatement, SqlValue } from "./database.ts";
import { mayRetry } from "./postgres-error.ts";
import { createPostgresPool, type PostgresOptions, type PostgresSession } from "./postgres-pool.ts";
import { guardSession } from "./sql-session.ts";

export type { PostgresOptions } from "./postgres-pool.ts";

// Deadlocks between batches that touch the same rows in another order: one of them is undone and simply goes again.
const ATTEMPTS = 5;
const RETRY_MS = 20;

/** Postgres through a pool of connections. Connects when first used, and by itself again after any loss. */
export function openPostgres(options: PostgresOptions): Database {
  const pool = createPostgresPool(options);

  async function run<Row extends SqlRow>(sql: string, params: readonly SqlValue[] = []): Promise<Row[]> {
    const result = await again(() => pool.use((session) => session.run(sql, params)));
    // The caller knows what its statement returns.
    return result.rows as Row[];
  }

  return {
    kind: "postgres",
    shared: true,
    query: run,
    write: run,
    writeAll: (statements) => again(() => pool.use((session) => runAll(session, statements))),
    transaction: (work) => pool.use((session) => runTransaction(session, work)),
    async ping() {
      await run("SELECT 1");
    },
    close: () => pool.close(),
  };
}

/** Repeats what the server undid for reasons of its own. Only for statements that depend on nothing read before. */
async function again<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (attempt === ATTEMPTS || !mayRetry(error)) throw error;
      await delay(Math.random() * RETRY_MS * attempt);
    }
  }
}

async function runAll(session: PostgresSession, statements: readonly SqlStatement[]): Promise<SqlRow[][]> {
  await session.run("BEGIN");
  // All are sent at once, so a batch costs two round trips. After a failed one the server refuses the rest, and makes the
  // COMMIT a rollback; the first failure is therefore the one that explains the others.
  const sent = statements.map((statement) => session.run(statement.sql, statement.params));
  const [results, [ended]] = await Promise.all([Promise.allSettled(sent), Promise.allSettled([session.run("COMMIT")])]);
  const rows = results.map((result) => {
    if (result.status === "rejected") throw result.reason;
    return result.value.rows;
  });
  if (ended?.status === "rejected") throw ended.reason;
  return rows;
}

async function runTransaction<T>(session: PostgresSession, work: (tx: SqlSession) => Promise<T>): Promise<T> {
  const guard = guardSession(
    async (sql, params) => (await session.run(sql, params)).rows,
    async (sql, rows) => {
      // All are on their way at once; the first that failed explains the others.
      const sent = await Promise.allSettled(rows.map((params) => session.run(sql, params)));
      for (const one of sent) if (one.status === "rejected") throw one.reason;
    },
  );
  await session.run("BEGIN");
  try {
    const result = await work(guard.tx);
    guard.end();
    guard.check();
    const ended = await session.run("COMMIT");
    // A statement that the work did not wait for may have failed after all.
    guard.check();
    if (ended.command !== "COMMIT") throw new Error("the transaction was rolled back");
    return result;
  } catch (error) {
    guard.end();
    // If the rollback fails the connection is spoiled and given away, and the server rolls back for want of it.
    await session.run("ROLLBACK").catch(() => {});
    throw error;
  }
}
