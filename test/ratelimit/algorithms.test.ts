import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Counted, type Counting, MOST_BACK_US } from "../../src/ratelimit/algorithms/counted.ts";
import { divideUp, MOST_USED, multiplyDivide } from "../../src/ratelimit/algorithms/exact.ts";
import { fixedWindow } from "../../src/ratelimit/algorithms/fixed-window.ts";
import { slidingWindow } from "../../src/ratelimit/algorithms/sliding-window.ts";
import { tokenBucket } from "../../src/ratelimit/algorithms/token-bucket.ts";
import type { Numbers } from "../../src/ratelimit/rule.ts";

/*
 * Promises: each algorithm decides as a log of every charge would, whatever the numbers; what it says of waiting is exact to the
 * microsecond; and never is more let through than the rule says.
 */

interface Charge {
  readonly at: number;
  readonly units: number;
}

/** What is used of a limit now, as an exact fraction over the period, from all that was ever charged. */
type UsedByLog = (log: readonly Charge[], numbers: Numbers, now: number) => bigint;

const MODELS: readonly { name: string; counting: Counting; used: UsedByLog; roundsUp: boolean }[] = [
  { name: "fixed window", counting: fixedWindow, used: usedInWindow, roundsUp: false },
  { name: "sliding window", counting: slidingWindow, used: usedInStretch, roundsUp: true },
  { name: "token bucket", counting: tokenBucket, used: usedOfBucket, roundsUp: true },
];

function sumBetween(log: readonly Charge[], from: number, to: number): bigint {
  return log.reduce((sum, { at, units }) => (at >= from && at < to ? sum + BigInt(units) : sum), 0n);
}

function usedInWindow(log: readonly Charge[], { periodUs }: Numbers, now: number): bigint {
  const start = now - (now % periodUs);
  return sumBetween(log, start, start + periodUs) * BigInt(periodUs);
}

function usedInStretch(log: readonly Charge[], { periodUs }: Numbers, now: number): bigint {
  const start = now - (now % periodUs);
  const before = sumBetween(log, start - periodUs, start) * BigInt(start + periodUs - now);
  return usedInWindow(log, { periodUs, limit: 0, burst: 0 }, now) + before;
}

function usedOfBucket(log: readonly Charge[], { limit, periodUs }: Numbers, now: number): bigint {
  let used = 0n;
  let since = 0;
  for (const { at, units } of [...log, { at: now, units: 0 }]) {
    const drained = BigInt(at - since) * BigInt(limit);
    used = (drained > used ? 0n : used - drained) + BigInt(units) * BigInt(periodUs);
    since = at;
  }
  return used;
}

const START = 1_763_000_000_000_000;
const small = fc.integer({ min: 1, max: 20 });
const numbers = fc.oneof(
  fc.record({ limit: small, periodUs: fc.integer({ min: 1_000, max: 3_000 }), burst: small }),
  fc.record({
    limit: fc.integer({ min: 1, max: 1_000_000_000_000 }),
    periodUs: fc.integer({ min: 1_000, max: 366 * 86_400_000_000 }),
    burst: fc.integer({ min: 1, max: 1_000_000_000_000 }),
  }),
);
/** Costs and pauses are shares of what the rule has, so that large numbers come near their limits as well. */
const steps = fc.array(
  fc.record({
    pause: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1.5, noNaN: true })),
    cost: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 0.6, noNaN: true })),
    always: fc.boolean(),
  }),
  { maxLength: 25 },
);

describe.each(MODELS)("the $name", ({ name, counting, used, roundsUp }) => {
  const most = (rule: Numbers) => (name === "token bucket" ? rule.burst : rule.limit);

  it("decides as a log of every charge does, and tells to the microsecond how long to wait", () => {
    fc.assert(
      fc.property(numbers, steps, (rule, moves) => {
        const period = BigInt(rule.periodUs);
        const log: Charge[] = [];
        let state: Counted | undefined;
        let now = START;
        for (const { pause, cost, always } of moves) {
          now += Math.floor(pause * rule.periodUs);
          const units = Math.max(1, Math.ceil(cost * most(rule)));
          const moved = counting.moved(state, rule, now);
          const taken = used(log, rule, now);
          const whole = Number((taken + period - 1n) / period);
          const fits = (at: number) => units <= most(rule) && ceilOf(used(log, rule, at), period) + units <= most(rule);
          const wait = counting.waitFor(moved, rule, now, units);
          expect(wait === 0).toBe(fits(now));
          if (wait > 0 && Number.isSafeInteger(now + wait)) {
            expect([fits(now + wait - 1), fits(now + wait)]).toEqual([false, true]);
          }
          if (wait === Number.POSITIVE_INFINITY) expect(units).toBeGreaterThan(most(rule));
          const level = counting.level(moved, rule, now);
          expect(level.remaining).toBe(Math.max(0, most(rule) - whole));
          expect(level.overdrawn).toBe(Math.max(0, whole - most(rule)));
          if (wait === 0 || always) {
            log.push({ at: now, units });
            state = { ...moved, used: moved.used + units };
          }
        }
        const end = counting.level(counting.moved(state, rule, now), rule, now).resetAt;
        // After the year 2255 microseconds are no longer told apart.
        if (!Number.isSafeInteger(end)) return;
        expect(used(log, rule, Math.max(end, now))).toBe(0n);
        if (roundsUp && end > now) expect(used(log, rule, end - 1)).not.toBe(0n);
      }),
      { numRuns: 300 },
    );
  });

  it("never gives back more than is used, nor what no longer counts", () => {
    fc.assert(
      fc.property(numbers, steps, fc.double({ min: 0, max: 3, noNaN: true }), small, (rule, moves, age, cost) => {
        let state: Counted | undefined;
        let now = START;
        for (const { pause, cost: share } of moves) {
          now += Math.floor(pause * rule.periodUs);
          const moved = counting.moved(state, rule, now);
          state = { ...moved, used: moved.used + Math.ceil(share * most(rule)) };
        }
        const before = counting.moved(state, rule, now);
        const chargedAt = now - Math.floor(age * rule.periodUs);
        const { state: after, units } = counting.refunded(before, rule, now, chargedAt, cost);
        const [was, is] = [before, after].map((one) => {
          const { remaining, overdrawn } = counting.level(one, rule, now);
          return most(rule) - remaining + overdrawn;
        });
        expect(units).toBe((was ?? 0) - (is ?? 0));
        expect(units).toBeLessThanOrEqual(cost);
        expect(is).toBeGreaterThanOrEqual(0);
        if (age >= 2 && name !== "token bucket") expect(units).toBe(0);
      }),
      { numRuns: 300 },
    );
  });

  it("keeps what was used when the numbers change, and counts on when the clock is put back", () => {
    const rule = { limit: 10, burst: 10, periodUs: 1_000_000 };
    const moved = counting.moved(undefined, rule, START);
    const state = { ...moved, used: 6 };
    for (const next of [
      { limit: 20, burst: 20, periodUs: 1_000_000 },
      { limit: 20, burst: 20, periodUs: 60_000_000 },
      { limit: 20, burst: 20, periodUs: 7_000 },
    ]) {
      expect(counting.level(counting.moved(state, next, START), next, START).remaining).toBe(14);
    }
    const earlier = START - 500_000;
    expect(counting.level(counting.moved(state, rule, earlier), rule, earlier).remaining).toBe(4);
  });
});

/** The longest that anyone waits who asks for no more than the limit, and has overdrawn nothing. */
const LONGEST_US: Readonly<Record<string, (rule: Numbers) => number>> = {
  "fixed window": ({ periodUs }) => 2 * periodUs,
  "sliding window": ({ periodUs }) => 3 * periodUs,
  "token bucket": ({ burst, limit, periodUs }) => MOST_BACK_US + Math.ceil((burst * periodUs) / limit),
};

describe.each(MODELS)("the $name, when the clock is put back by hours", ({ name, counting }) => {
  it("forgets nothing, and keeps nobody out until the clock is again where it was", () => {
    const rule = { limit: 10, burst: 10, periodUs: 1_000_000 };
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 10 }), fc.integer({ min: 0, max: 100_000_000_000 }), (used, back) => {
        const before = { ...counting.moved(undefined, rule, START), used };
        const now = START - back;
        const state = counting.moved(before, rule, now);
        expect(counting.level(state, rule, now).remaining).toBe(10 - used);
        const wait = counting.waitFor(state, rule, now, 10);
        expect(wait).toBeLessThanOrEqual(LONGEST_US[name]?.(rule) ?? 0);
        const later = counting.moved({ ...state, used: 10 }, rule, now + wait);
        expect(counting.waitFor(later, rule, now + wait, 1)).toBeLessThanOrEqual(LONGEST_US[name]?.(rule) ?? 0);
      }),
    );
  });
});

function ceilOf(fraction: bigint, period: bigint): number {
  return Number((fraction + period - 1n) / period);
}

describe("a fixed window", () => {
  it("begins with a multiple of its period since 1970", () => {
    const rule = { limit: 1, burst: 1, periodUs: 60_000_000 };
    const state = fixedWindow.moved(undefined, rule, 61_000_000);
    expect(state.at).toBe(60_000_000);
    expect(fixedWindow.waitFor({ ...state, used: 1 }, rule, 61_000_000, 1)).toBe(59_000_000);
  });
});

describe("numbers beyond 2^53", () => {
  it("are multiplied and divided exactly", () => {
    const factor = fc.integer({ min: 0, max: 2 ** 53 - 1 });
    fc.assert(
      fc.property(factor, factor, fc.integer({ min: 1, max: MOST_USED }), (a, b, c) => {
        // Only results that a number can hold are asked for.
        const exact = (BigInt(a) * BigInt(b)) / BigInt(c);
        fc.pre(exact < 2n ** 53n);
        const { whole, rest } = multiplyDivide(a, b, c);
        expect([BigInt(whole), BigInt(rest)]).toEqual([exact, (BigInt(a) * BigInt(b)) % BigInt(c)]);
        expect(divideUp(a, b, c)).toBe(rest > 0 ? whole + 1 : whole);
      }),
      { numRuns: 2_000 },
    );
  });
});
