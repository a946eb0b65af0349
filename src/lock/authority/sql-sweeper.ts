import { setTimeout as delay } from "node:timers/promises";
import type { Database } from "../../infra/database.ts";
import type { Log } from "../../infra/log.ts";
import type { SqlClock } from "./sql-clock.ts";
import { pruneAttempts, pruneRecords } from "./sql-prune.ts";

/** Forgets what is over of locks, a little at a time. Instances may do so at the same time. */
export interface LockSweeper {
  /** All that there is now; what the timer does. */
  sweep(): Promise<void>;
  close(): Promise<void>;
}

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

export function startLockSweeper({ database, clock, log, intervalMs = INTERVAL_MS }: LockSweeperOptions): LockSweeper {
  const closing = new AbortController();
  let sweeping: Promise<void> | undefined;

  async function portions(removeOne: () => Promise<number>, most: number): Promise<void> {
    let removed = most;
    while (removed === most && !closing.signal.aborted) {
      const since = performance.now();
      removed = await removeOne();
      // Leaves others as much of the database as it takes. Cut short when this is closed.
      const pauseMs = performance.now() - since;
      await delay(pauseMs, undefined, { signal: closing.signal, ref: false }).catch(() => undefined);
    }
  }

  async function sweepAll(): Promise<void> {
    try {
      await portions(() => pruneAttempts(database, clock, ATTEMPTS_AT_ONCE), ATTEMPTS_AT_ONCE);
      await portions(() => pruneRecords(database, clock, RECORDS_AT_ONCE), RECORDS_AT_ONCE);
    } catch (err) {
      log.warn({ err }, "what is over of locks is not forgotten yet");
    }
  }

  function sweep(): Promise<void> {
    sweeping ??= sweepAll().finally(() => {
      sweeping = undefined;
    });
    return sweeping;
  }

  const timer = setInterval(() => void sweep(), intervalMs).unref();
  return {
    sweep,
    async close() {
      closing.abort();
      clearInterval(timer);
      await sweeping;
    },
  };
}
