import type { Numbers } from "../rule.ts";

/**
 * What is remembered of one limit between calls, alike in memory and in Redis: four whole numbers, of which each algorithm says
 * what they are to it. Times are microseconds since 1970.
 */
export interface Counted {
  /** When the window began; of a bucket, as of when. */
  readonly at: number;
  /** The period that the numbers were counted by. */
  readonly periodUs: number;
  readonly used: number;
  /** The use of the window before; of a bucket, the part of a unit, in units divided by the period. */
  readonly rest: number;
}

/**
 * The clock may be put back, and forward again: what was counted goes on meanwhile, so that nothing is let through twice. Not for
 * longer than this, or a clock that was wrong for a moment would keep callers out for as long as it was wrong by. Of windows it is
 * their period.
 */
export const MOST_BACK_US = 1_000_000;

/** How a limit stands. */
export interface Level {
  readonly remaining: number;
  readonly overdrawn: number;
  /** When it is whole again if nothing more is used. */
  readonly resetAt: number;
}

export interface Refunded {
  readonly state: Counted;
  readonly units: number;
}

/** An algorithm that counts uses over time. Pure: `state` is always the one that `moved` made for the same rule and time. */
export interface Counting {
  /** The state as of now under these numbers, whatever they were before: what was used stays used. */
  moved(state: Counted | undefined, numbers: Numbers, now: number): Counted;
  level(state: Counted, numbers: Numbers, now: number): Level;
  /** Microseconds until so much may be used: 0 when it may now, Infinity when it never can. */
  waitFor(state: Counted, numbers: Numbers, now: number, units: number): number;
  /** Gives back what was charged at that time, as far as it still counts. */
  refunded(state: Counted, numbers: Numbers, now: number, chargedAt: number, units: number): Refunded;
}
