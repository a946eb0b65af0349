import type { Database, SqlSession } from "../../infra/database.ts";
import type { SqlClock } from "../../infra/sql-clock.ts";
import type { FallbackHeads } from "./head.ts";
import { beginMode, heldUntilMs, holdHead } from "./sql-heads.ts";

export interface SqlFallbackOptions {
  readonly database: Database;
  readonly clock: SqlClock;
  readonly instanceId: string;
  /** A complaint that was not repeated for so long is of an instance that has ended. Default: a minute. */
  readonly lapseMs?: number;
}

const LAPSE_MS = 60_000;

/** What an authority with a fallback keeps in SQL beside the head. */
export function createSqlFallback(options: SqlFallbackOptions): FallbackHeads {
  const { database, clock, instanceId, lapseMs = LAPSE_MS } = options;
  const { kind } = database;

  async function mayGiveBack(session: Pick<SqlSession, "query">, nowMs: number, evenIfHeld: boolean): Promise<boolean> {
    const complaints = await session.query("SELECT 1 AS found FROM lock_complaint WHERE complain_ms > $1 LIMIT 1", [
      nowMs - lapseMs,
    ]);
    if (complaints.length > 0) return false;
    return evenIfHeld || (await heldUntilMs(session, nowMs)) === undefined;
  }

  return {
    async complain() {
      await database.write(
        `INSERT INTO lock_complaint (instance_id, complain_ms) VALUES ($1, $2)
        ON CONFLICT (instance_id) DO UPDATE SET complain_ms = excluded.complain_ms`,
        [instanceId, await clock(database)],
      );
    },
    async withdraw() {
      const lapsedMs = (await clock(database)) - lapseMs;
      await database.write("DELETE FROM lock_complaint WHERE instance_id = $1 OR complain_ms <= $2", [
        instanceId,
        lapsedMs,
      ]);
    },
    takeOver: (from) =>
      database.transaction(async (tx) => {
        const row = await holdHead(kind, tx);
        if (row.mode === from) await beginMode(tx, row, kind, await clock(tx));
      }),
    async giveBack(to, evenIfHeld) {
      // Looked at before the head is held: everybody waits for whoever holds it.
      if (!(await mayGiveBack(database, await clock(database), evenIfHeld))) return;
      await database.transaction(async (tx) => {
        const row = await holdHead(kind, tx);
        const nowMs = await clock(tx);
        if (row.mode !== kind || !(await mayGiveBack(tx, nowMs, evenIfHeld))) return;
        await beginMode(tx, row, to, nowMs);
      });
    },
  };
}
