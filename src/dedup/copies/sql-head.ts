import type { Database } from "../../infra/database.ts";
import type { SqlClock } from "../../infra/sql-clock.ts";
import { BELIEF_MS, type Head, MARGIN_MS } from "./head.ts";

const READ = "SELECT generation FROM dedup_head WHERE id = 1";
const OPEN = "UPDATE dedup_head SET generation = 1 - generation WHERE id = 1 AND generation <= 0";
/** No commit takes so long. */
const LONG_AGO_MS = 3_600_000;
/** Also where it has ended, so that in Postgres the row is held until this is committed. */
const END = `UPDATE dedup_head SET closed_ms = CASE WHEN generation > 0 THEN $1 ELSE closed_ms END,
  generation = CASE WHEN generation > 0 THEN -1 - generation ELSE generation END WHERE id = 1 RETURNING closed_ms`;

export function createSqlHead(database: Database, clock: SqlClock): Head {
  return {
    async read() {
      const [[row], nowMs] = await Promise.all([database.query<{ generation: number }>(READ), clock(database)]);
      if (row === undefined) throw new Error("dedup_head has lost its row");
      return { generation: row.generation, nowMs };
    },
    async open() {
      await database.write(OPEN);
    },
    async end() {
      const { triedMs, endedMs } = await database.transaction(async (tx) => {
        const nowMs = await clock(tx);
        const [row] = await tx.query<{ closed_ms: number }>(END, [nowMs]);
        return { triedMs: nowMs, endedMs: row?.closed_ms ?? 0 };
      });
      // From here on nobody begins to believe it. When it ended is not known to the moment: a commit may take its time.
      const mayBeBelieved = endedMs !== 0 && triedMs - endedMs < LONG_AGO_MS;
      return mayBeBelieved ? BELIEF_MS + MARGIN_MS : 0;
    },
  };
}
