import type { Clock } from "../../infra/clock.ts";
import type { LockKeys } from "./redis-keys.ts";

/** By how much the clock of a server has to be behind what was heard before to be taken as set back. */
const SET_BACK_MS = 1_000;

export interface RedisPatience {
  /**
   * What the server's clock will show when a caller that asks now has stopped waiting. 0: nothing was heard from it
   * yet.
   */
  until(keys: LockKeys): number;
  /** What the clock showed in an answer that has just come. */
  heard(keys: LockKeys, nowMs: number): void;
}

/**
 * For how long a caller waits, in the time of the server that it waits for: what a frozen server reads when it goes on
 * may be older than that, and must not be carried out any more.
 */
export function createRedisPatience(clock: Pick<Clock, "monotonic">, waitMs: number): RedisPatience {
  /** By how much a server's clock is ahead of our monotonic one, at least: an answer is always a little old. */
  const offsets: number[] = [];
  return {
    until({ partition }) {
      const offset = offsets[partition];
      return offset === undefined ? 0 : Math.floor(offset + clock.monotonic() + waitMs);
    },
    heard({ partition }, nowMs) {
      const offset = nowMs - clock.monotonic();
      const known = offsets[partition];
      if (known === undefined || offset > known || offset < known - SET_BACK_MS) offsets[partition] = offset;
    },
  };
}
