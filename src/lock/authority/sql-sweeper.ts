import type { Database } from "../../infra/database.ts";
import type { Log } from "../../infra/log.ts";
import type { SqlClock } from "../../infra/sql-clock.ts";
import { type Sweeper, startSweeper } from "../../infra/sweeper.ts";
import { pruneAttempts, pruneRecords } from "./sql-prune.ts";

export interface LockSweeperOptions {
  readonly database: Database;
  readonly clock: SqlClock;
  readonly log: Log;
  /** Default: a minute. */
  readonly intervalMs?: number;
}

const INTERVAL_MS = 60_000;
/** While this many records go, locks wait; for attempts nobody waits. */
const RECORDS_AT_ONCE = 200;
const ATTEMPTS_AT_ONCE = 500;

/** Forgets what is over of locks. */
export function startLockSweeper({ database, clock, log, intervalMs = INTERVAL_MS }: LockSweeperOptions): Sweeper {
  return startSweeper({
    intervalMs,
    async sweepAll({ portions }) {
      try {
        await portions(async () => (await pruneAttempts(database, clock, ATTEMPTS_AT_ONCE)) === ATTEMPTS_AT_ONCE);
        await portions(async () => (await pruneRecords(database, clock, RECORDS_AT_ONCE)) === RECORDS_AT_ONCE);
      } catch (err) {
        log.warn({ err }, "what is over of locks is not forgotten yet");
      }
    },
  });
}
