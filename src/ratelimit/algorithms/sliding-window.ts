import type { Counted, Counting } from "./counted.ts";
import { divideUp, MOST_USED, multiplyDivide } from "./exact.ts";

/**
 * At most the limit in any stretch of the period, by the windows that a fixed window would have: of the one before counts the
 * share that the stretch still covers, rounded up.
 */
export const slidingWindow: Counting = {
  moved(state, { periodUs }, now) {
    if (state === undefined) return { at: now - (now % periodUs), periodUs, used: 0, rest: 0 };
    // Of a clock that was put back as a fixed window does.
    const isAhead = state.at - now > periodUs;
    const time = isAhead ? now : Math.max(now, state.at);
    const rolled = roll(isAhead ? { ...state, at: time - (time % state.periodUs) } : state, time);
    if (state.periodUs === periodUs) return rolled;
    // Counted by another period: what still counts of it does so from now on.
    const used = Math.min(MOST_USED, rolled.used + carried(rolled, time));
    return { at: time - (time % periodUs), periodUs, used, rest: 0 };
  },

  level(state, { limit }, now) {
    const { at, periodUs, used, rest } = state;
    const total = used + carried(state, now);
    const resetAt = used > 0 ? at + 2 * periodUs : rest > 0 ? at + periodUs : Math.max(now, at);
    return { remaining: Math.max(0, limit - total), overdrawn: Math.max(0, total - limit), resetAt };
  },

  waitFor(state, { limit }, now, units) {
    if (units > limit) return Number.POSITIVE_INFINITY;
    const { at, periodUs, used, rest } = state;
    const room = limit - units - used;
    const left = leftOf(state, now);
    const early = Math.max(0, at - now);
    if (room >= 0) {
      if (carried(state, now) <= room) return 0;
      return early + left - multiplyDivide(periodUs, room, rest).whole;
    }
    // Only in the next window, of which this one is the one before.
    return early + left + periodUs - multiplyDivide(periodUs, limit - units, used).whole;
  },

  refunded(state, _, now, chargedAt, units) {
    const { at, periodUs, used, rest } = state;
    if (chargedAt >= at) {
      const back = Math.min(units, used);
      return { state: { ...state, used: used - back }, units: back };
    }
    if (chargedAt < at - periodUs) return { state, units: 0 };
    const next = { ...state, rest: Math.max(0, rest - units) };
    return { state: next, units: carried(state, now) - carried(next, now) };
  },
};

function roll(state: Counted, time: number): Counted {
  const { periodUs, used } = state;
  if (time < state.at + periodUs) return state;
  const at = time - (time % periodUs);
  return { at, periodUs, used: 0, rest: time < state.at + 2 * periodUs ? used : 0 };
}

/** How much of the window is still to come. */
function leftOf({ at, periodUs }: Counted, now: number): number {
  return at + periodUs - Math.max(now, at);
}

function carried(state: Counted, now: number): number {
  return state.rest === 0 ? 0 : divideUp(leftOf(state, now), state.rest, state.periodUs);
}
