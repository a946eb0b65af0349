/** Time as the rules see it, so that a test can move it. */
export interface Clock {
  /** Wall clock, in milliseconds since 1970. May jump. */
  now(): number;
  /** Milliseconds from an arbitrary start. Never goes back. */
  monotonic(): number;
}

/** When something was. */
export interface Moment {
  readonly monotonic: number;
  readonly now: number;
}

export function momentOf(clock: Clock): Moment {
  return { monotonic: clock.monotonic(), now: clock.now() };
}

/** How long ago that was, or more: the monotonic clock of a machine that was suspended has stood still. */
export function ageMs(clock: Clock, { monotonic, now }: Moment): number {
  return Math.max(clock.monotonic() - monotonic, clock.now() - now);
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
};
