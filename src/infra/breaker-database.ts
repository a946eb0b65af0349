import type { Breaker } from "./breaker.ts";
import { BreakerOpenError } from "./circuit-breaker.ts";
import type { Database } from "./database.ts";
import { UnavailableError } from "./failure.ts";

/**
 * A database that is left alone while it fails, so that calls which can do without it do not wait for its timeouts, and those
 * which cannot are told at once. Only `ping` always asks it.
 */
export function withBreaker(database: Database, breaker: Breaker): Database {
  async function guarded<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await breaker.execute(work);
    } catch (error) {
      if (!(error instanceof BreakerOpenError)) throw error;
      // Whoever reacts to the database being away need not know of the breaker.
      const retryAfterMs = error.retryAfterMs ?? 1_000;
      throw new UnavailableError("SQL_UNAVAILABLE", error.message, { retryAfterMs });
    }
  }

  return {
    kind: database.kind,
    shared: database.shared,
    query: (sql, params) => guarded(() => database.query(sql, params)),
    write: (sql, params) => guarded(() => database.write(sql, params)),
    writeAll: (statements) => guarded(() => database.writeAll(statements)),
    transaction: (work) => guarded(() => database.transaction(work)),
    ping: () => database.ping(),
    async close() {
      breaker.close();
      await database.close();
    },
  };
}
