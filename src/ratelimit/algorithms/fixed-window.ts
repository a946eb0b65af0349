import type { Counted, Counting } from "./counted.ts";

/** At most the limit in each window; windows are aligned to 1970. */
export const fixedWindow: Counting = {
  moved(state, { periodUs }, now) {
    // Should the clock have been put back, the window that was counted in goes on; by more than a window, it is the one of now.
    const isAhead = state !== undefined && state.at - now > periodUs;
    const time = state === undefined || isAhead ? now : Math.max(now, state.at);
    const at = time - (time % periodUs);
    if (state === undefined || time >= state.at + state.periodUs) return { at, periodUs, used: 0, rest: 0 };
    return state.periodUs === periodUs && !isAhead ? state : { at, periodUs, used: state.used, rest: 0 };
  },

  level({ at, periodUs, used }, { limit }) {
    return { remaining: Math.max(0, limit - used), overdrawn: Math.max(0, used - limit), resetAt: at + periodUs };
  },

  waitFor({ at, periodUs, used }, { limit }, now, units) {
    if (units > limit) return Number.POSITIVE_INFINITY;
    return used + units <= limit ? 0 : at + periodUs - now;
  },

  refunded(state, _, __, chargedAt, units) {
    const back = chargedAt < state.at ? 0 : Math.min(units, state.used);
    return { state: withUsed(state, state.used - back), units: back };
  },
};

function withUsed(state: Counted, used: number): Counted {
  return { ...state, used };
}
