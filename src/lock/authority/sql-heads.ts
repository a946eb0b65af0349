import type { Database, SqlSession } from "../../infra/database.ts";
import type { SqlClock } from "../../infra/sql-clock.ts";
import { LockAuthorityChangingError } from "../failures.ts";
import { MOST_EPOCHS } from "../record/token.ts";
import type { Head, Heads, Mode } from "./head.ts";

export type HeadRow = {
  epoch: number;
  since_epoch: number;
  mode: Mode | "";
  longest_ms: number;
  quiet_until_ms: number;
  floor: number;
};

export const HEAD_COLUMNS = "epoch, since_epoch, mode, longest_ms, quiet_until_ms, floor";

/** The advisory lock of the head in Postgres: shared by those who decide as it says, and held alone by whoever changes that. */
export const HEAD_LOCK = 7_813_574_921_364;

export async function readHead(session: Pick<SqlSession, "query">): Promise<HeadRow> {
  return headIn(await session.query<HeadRow>(`SELECT ${HEAD_COLUMNS} FROM lock_head WHERE id = 1`));
}

export function headIn([row]: readonly HeadRow[]): HeadRow {
  if (row === undefined) throw new Error("lock_head has lost its row");
  return row;
}

/** Nobody else decides, or changes who does, until the transaction ends. */
export async function holdHead(kind: Database["kind"], tx: SqlSession): Promise<HeadRow> {
  // A statement of its own: what a statement sees is from before it waited.
  if (kind === "postgres") await tx.query(`SELECT pg_advisory_xact_lock(${HEAD_LOCK})`);
  return readHead(tx);
}

/** Otherwise leases may last that it does not know of. */
export function requireDecides(wanted: Mode, { mode, quiet_until_ms }: HeadRow, nowMs: number): void {
  if (mode !== wanted) throw new LockAuthorityChangingError(`${mode || "nobody"} decides now, not ${wanted}`);
  if (quiet_until_ms > nowMs) {
    throw new LockAuthorityChangingError("leases of before may last", quiet_until_ms - nowMs);
  }
}

export function createSqlHeads(database: Database, clock: SqlClock): Heads {
  const { kind } = database;

  async function begin(tx: SqlSession, row: HeadRow, mode: Mode, quietUntilMs: number): Promise<number> {
    const epoch = row.epoch + 1;
    if (epoch >= MOST_EPOCHS) throw new Error(`fencing tokens are used up: ${MOST_EPOCHS} epochs`);
    await tx.query(
      "UPDATE lock_head SET epoch = $1, since_epoch = $2, mode = $3, longest_ms = $4, quiet_until_ms = $5 WHERE id = 1",
      // What was granted before is waited out; a new epoch of the same mode goes on with the leases it has.
      row.mode === mode
        ? [epoch, row.since_epoch, mode, row.longest_ms, quietUntilMs]
        : [epoch, epoch, mode, 0, quietUntilMs],
    );
    return epoch;
  }

  return {
    async read() {
      const row = await readHead(database);
      return headOf(row, await clock(database));
    },
    become: (mode) =>
      database.transaction(async (tx) => {
        const row = await holdHead(kind, tx);
        const nowMs = await clock(tx);
        if (row.mode === mode) return headOf(row, nowMs);
        const quietUntilMs = Math.max(row.quiet_until_ms, nowMs + row.longest_ms);
        const epoch = await begin(tx, row, mode, quietUntilMs);
        return { mode, epoch, sinceEpoch: epoch, longestMs: 0, quietMs: quietUntilMs - nowMs };
      }),
    async allowLeases(mode, longestMs) {
      const rows = await database.write(
        `UPDATE lock_head SET longest_ms = CASE WHEN longest_ms < $1 THEN $1 ELSE longest_ms END
        WHERE id = 1 AND mode = $2 RETURNING 1 AS allowed`,
        [longestMs, mode],
      );
      return rows.length > 0;
    },
    nextEpoch: (mode) =>
      database.transaction(async (tx) => {
        const row = await holdHead(kind, tx);
        return row.mode === mode ? begin(tx, row, mode, row.quiet_until_ms) : undefined;
      }),
  };
}

function headOf({ mode, epoch, since_epoch, longest_ms, quiet_until_ms }: HeadRow, nowMs: number): Head {
  return { mode, epoch, sinceEpoch: since_epoch, longestMs: longest_ms, quietMs: Math.max(0, quiet_until_ms - nowMs) };
}
