import type { Database } from "./database.ts";
import type { Log } from "./log.ts";
import { pruneFences } from "./sql-fences.ts";
import { type Sweeper, startSweeper } from "./sweeper.ts";

export interface FenceSweeperOptions {
  readonly database: Database;
  readonly log: Log;
  /** Default: an hour. */
  readonly intervalMs?: number;
}

const INTERVAL_MS = 3_600_000;
/** By then who decides about locks knows of no older token, or refuses it: what is not remembered here is asked there. */
export const FENCES_KEPT_MS = 30 * 86_400_000;
const AT_ONCE = 500;

/** Forgets fences that nobody comes to any more. */
export function startFenceSweeper({ database, log, intervalMs = INTERVAL_MS }: FenceSweeperOptions): Sweeper {
  return startSweeper({
    intervalMs,
    async sweepAll({ portions }) {
      try {
        await portions(async () => (await pruneFences(database, FENCES_KEPT_MS, AT_ONCE)) === AT_ONCE);
      } catch (err) {
        log.warn({ err }, "fences that nobody comes to are not forgotten yet");
      }
    },
  });
}
