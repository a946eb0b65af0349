import type { Clock } from "./clock.ts";
import type { Database, SqlSession } from "./database.ts";

/** Milliseconds by the clock that decides about leases and claims. */
export type SqlClock = (session: Pick<SqlSession, "query">) => Promise<number>;

const POSTGRES_NOW = "SELECT FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT AS now_ms";

/**
 * Instances that share a Postgres go by its clock, however far apart their own are. With SQLite there is one instance: it takes
 * the wall clock once, when it starts, and from then on only counts; so a clock that is set while it runs ends no lease early.
 */
export function createSqlClock(kind: Database["kind"], clock: Clock): SqlClock {
  if (kind === "postgres") {
    return async (session) => {
      const [row] = await session.query<{ now_ms: number }>(POSTGRES_NOW);
      if (row === undefined) throw new Error("Postgres does not tell the time");
      return row.now_ms;
    };
  }
  const startMs = clock.now() - clock.monotonic();
  return async () => Math.floor(startMs + clock.monotonic());
}
