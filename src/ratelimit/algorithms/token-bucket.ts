import { type Counting, MOST_BACK_US } from "./counted.ts";
import { divideUp, multiplyDivide } from "./exact.ts";

/**
 * A bucket that fills evenly, by the limit each period (GCRA). What is kept is how far below full it is, as an exact fraction: a
 * time in microseconds could not tell units apart of which thousands come in each.
 */
export const tokenBucket: Counting = {
  moved(state, { limit, periodUs }, now) {
    if (state === undefined) return { at: now, periodUs, used: 0, rest: 0 };
    let { used, rest } = state;
    if (state.periodUs !== periodUs) rest = divideUp(periodUs, rest, state.periodUs);
    if (rest >= periodUs) {
      rest -= periodUs;
      used += 1;
    }
    const since = state.at - now > MOST_BACK_US ? now : state.at;
    const at = Math.max(now, since);
    const filled = multiplyDivide(at - since, limit, periodUs);
    if (filled.whole > used || (filled.whole === used && filled.rest >= rest))
      return { at, periodUs, used: 0, rest: 0 };
    used -= filled.whole;
    rest -= filled.rest;
    return rest < 0 ? { at, periodUs, used: used - 1, rest: rest + periodUs } : { at, periodUs, used, rest };
  },

  level({ at, periodUs, used, rest }, { limit, burst }) {
    const total = rest > 0 ? used + 1 : used;
    const resetAt = at + timeToFill(used, rest, periodUs, limit);
    return { remaining: Math.max(0, burst - total), overdrawn: Math.max(0, total - burst), resetAt };
  },

  waitFor({ at, periodUs, used, rest }, { limit, burst }, now, units) {
    if (units > burst) return Number.POSITIVE_INFINITY;
    const over = used + units - burst;
    if (over < 0 || (over === 0 && rest === 0)) return 0;
    return at - now + timeToFill(over, rest, periodUs, limit);
  },

  refunded(state, { limit, periodUs, burst }, now, chargedAt, units) {
    // A bucket has no windows. What was taken before the time in which an empty one fills is over.
    if (now - chargedAt >= timeToFill(burst, 0, periodUs, limit)) return { state, units: 0 };
    const { used, rest } = state;
    const back = Math.min(units, rest > 0 ? used + 1 : used);
    return { state: back > used ? { ...state, used: 0, rest: 0 } : { ...state, used: used - back }, units: back };
  },
};

function timeToFill(used: number, rest: number, periodUs: number, limit: number): number {
  const { whole, rest: remains } = multiplyDivide(periodUs, used, limit);
  return whole + Math.ceil((remains + rest) / limit);
}
