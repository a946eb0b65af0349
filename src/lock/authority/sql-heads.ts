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
  busy_until_ms: number;
  floor: number;
};

export const HEAD_COLUMNS = "epoch, since_epoch, mode, longest_ms, quiet_until_ms, busy_until_ms, floor";

/** The advisory lock of the head in Postgres: shared by those who decide as it says, and held alone by whoever changes that. */
export const HEAD_LOCK = 7_813_574_921_364;

const READ_HEAD = `SELECT ${HEAD_COLUMNS} FROM lock_head WHERE id = 1`;

export async function readHead(session: Pick<SqlSession, "query">): Promise<HeadRow> {
  return headIn(await session.query<HeadRow>(READ_HEAD));
}

export function headIn([row]: readonly HeadRow[]): HeadRow {
  if (row === undefined) throw new Error("lock_head has lost its row");
  return row;
}

/** Nobody else decides, changes who does, or announces leases, until the transaction ends. */
export async function holdHead(kind: Database["kind"], tx: SqlSession): Promise<HeadRow> {
  if (kind === "sqlite") return readHead(tx);
  // A statement of its own: what a statement sees is from before it waited.
  await tx.query(`SELECT pg_advisory_xact_lock(${HEAD_LOCK})`);
  return headIn(await tx.query<HeadRow>(`${READ_HEAD} FOR UPDATE`));
}

/** Otherwise leases may last that it does not know of. */
export function requireDecides(wanted: Mode, { mode, quiet_until_ms }: HeadRow, nowMs: number): void {
  if (mode !== wanted) throw new LockAuthorityChangingError(`${mode || "nobody"} decides now, not ${wanted}`);
  if (quiet_until_ms > nowMs) {
    throw new LockAuthorityChangingError("leases of before may last", quiet_until_ms - nowMs);
  }
}

/** In SQL it is known which leases last; of others only what was told before they were granted. */
async function lastEndMs(tx: SqlSession, { mode, longest_ms, busy_until_ms }: HeadRow, nowMs: number): Promise<number> {
  if (mode === "sqlite" || mode === "postgres") return (await heldUntilMs(tx, nowMs)) ?? nowMs;
  return Math.max(nowMs + longest_ms, busy_until_ms);
}

/** When the last lease ends that SQL decided about; undefined: none is held. */
export async function heldUntilMs(session: Pick<SqlSession, "query">, nowMs: number): Promise<number | undefined> {
  const [last] = await session.query<{ expire_ms: number }>(
    "SELECT expire_ms FROM lock_record WHERE ended = '' AND expire_ms > $1 ORDER BY expire_ms DESC LIMIT 1",
    [nowMs],
  );
  return last?.expire_ms;
}

async function begin(tx: SqlSession, row: HeadRow, change: Partial<HeadRow>): Promise<HeadRow> {
  const next = { ...row, epoch: row.epoch + 1, ...change };
  if (next.epoch >= MOST_EPOCHS) throw new Error(`fencing tokens are used up: ${MOST_EPOCHS} epochs`);
  await tx.query(
    `UPDATE lock_head SET epoch = $1, since_epoch = $2, mode = $3, longest_ms = $4, quiet_until_ms = $5, busy_until_ms = $6
      WHERE id = 1`,
    [next.epoch, next.since_epoch, next.mode, next.longest_ms, next.quiet_until_ms, next.busy_until_ms],
  );
  return next;
}

/** Makes another mode decide, in the transaction that holds the head; `nowMs` was asked for since. */
export async function beginMode(tx: SqlSession, row: HeadRow, mode: Mode, nowMs: number): Promise<HeadRow> {
  const quietUntilMs = Math.max(row.quiet_until_ms, await lastEndMs(tx, row, nowMs));
  // What was granted before is waited out.
  return begin(tx, row, {
    ...{ mode, since_epoch: row.epoch + 1, quiet_until_ms: quietUntilMs, longest_ms: 0, busy_until_ms: 0 },
  });
}

export function createSqlHeads(database: Database, clock: SqlClock): Heads {
  const { kind } = database;

  async function read(): Promise<Head> {
    if (kind === "sqlite") return headOf(await readHead(database), await clock(database));
    return database.transaction(async (tx) => {
      // Whoever changes the head has held it since before it looked at the clock, and for as long as its commit may take.
      const meet = tx.query(`SELECT pg_advisory_xact_lock_shared(${HEAD_LOCK}) AS met`);
      const [, row, nowMs] = await Promise.all([meet, readHead(tx), clock(tx)]);
      return headOf(row, nowMs);
    });
  }

  return {
    read,
    become: (mode) =>
      database.transaction(async (tx) => {
        const row = await holdHead(kind, tx);
        const nowMs = await clock(tx);
        return headOf(row.mode === mode ? row : await beginMode(tx, row, mode, nowMs), nowMs);
      }),
    async allowLeases(mode, longestMs) {
      const rows = await database.write(
        `UPDATE lock_head SET longest_ms = CASE WHEN longest_ms < $1 THEN $1 ELSE longest_ms END
        WHERE id = 1 AND mode = $2 RETURNING 1 AS allowed`,
        [longestMs, mode],
      );
      return rows.length > 0;
    },
    async announce(mode, forMs) {
      const nowMs = await clock(database);
      const [row] = await database.write<HeadRow>(
        `UPDATE lock_head SET busy_until_ms = CASE WHEN busy_until_ms < $1 THEN $1 ELSE busy_until_ms END
        WHERE id = 1 AND mode = $2 RETURNING ${HEAD_COLUMNS}`,
        [nowMs + Math.ceil(forMs), mode],
      );
      return row && headOf(row, nowMs);
    },
    nextEpoch: (mode, beyond = 0) =>
      database.transaction(async (tx) => {
        const row = await holdHead(kind, tx);
        // The same mode goes on with the leases it has.
        if (row.mode !== mode) return undefined;
        const { epoch } = await begin(tx, row, { epoch: Math.max(row.epoch, beyond) + 1 });
        return epoch;
      }),
  };
}

function headOf(row: HeadRow, nowMs: number): Head {
  const { mode, epoch, since_epoch, longest_ms, quiet_until_ms, busy_until_ms } = row;
  return {
    ...{ mode, epoch, sinceEpoch: since_epoch, longestMs: longest_ms },
    ...{ quietMs: Math.max(0, quiet_until_ms - nowMs), busyMs: Math.max(0, busy_until_ms - nowMs) },
  };
}
