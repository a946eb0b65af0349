import type { Log } from "../infra/log.ts";
import { type Sweeper, startSweeper } from "../infra/sweeper.ts";

export interface ClaimSweeperParts {
  /** Removes so many at most, and returns how many it removed. */
  readonly removeSome: (most: number) => Promise<number>;
  readonly intervalMs: number;
  readonly log: Log;
}

const PER_PORTION = 500;

/** Removes claims that are forgotten. */
export function startClaimSweeper({ removeSome, intervalMs, log }: ClaimSweeperParts): Sweeper {
  return startSweeper({
    intervalMs,
    async sweepAll({ portions }) {
      try {
        await portions(async () => (await removeSome(PER_PORTION)) === PER_PORTION);
      } catch (err) {
        log.warn({ err }, "claims that are forgotten are not removed yet");
      }
    },
  });
}
