/** Time as the rules see it, so that a test can move it. */
export interface Clock {
  /** Wall clock, in milliseconds since 1970. May jump. */
  now(): number;
  /** Milliseconds from an arbitrary start. Never goes back. */
  monotonic(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
};
