import type { Clock } from "../../src/infra/clock.ts";

/** A clock that stands still until a test moves it, forward or back. */
export interface MovedClock extends Clock {
  move(ms: number): void;
}

/** Starts at the real time, so that servers which keep time themselves agree about what lies ahead. */
export function movedClock(): MovedClock {
  let now = Date.now();
  let monotonic = 0;
  return {
    now: () => now,
    monotonic: () => monotonic,
    move(ms) {
      now += ms;
      monotonic += Math.max(0, ms);
    },
  };
}
