import type { HeldSlots } from "./algorithms/concurrency.ts";
import { type SlotLevel, slotLevel, waitForSlots } from "./algorithms/concurrency.ts";
import type { Counted, Counting } from "./algorithms/counted.ts";
import { MOST_USED } from "./algorithms/exact.ts";
import { fixedWindow } from "./algorithms/fixed-window.ts";
import { slidingWindow } from "./algorithms/sliding-window.ts";
import { tokenBucket } from "./algorithms/token-bucket.ts";
import type { Ask, Charge, Standing } from "./counters.ts";
import { counterName } from "./counters.ts";
import type { Algorithm, Rule } from "./rule.ts";

const COUNTINGS: Readonly<Record<Exclude<Algorithm, "concurrency">, Counting>> = {
  fixed_window: fixedWindow,
  sliding_window: slidingWindow,
  token_bucket: tokenBucket,
};

/** Where the rules find what is remembered, and put what is to be. By the names of counters. */
export interface Memory {
  counted(counter: string): Counted | undefined;
  keep(counter: string, state: Counted, until: number): void;
  held(counter: string): HeldSlots;
}

export interface Decision {
  readonly allowed: boolean;
  readonly standings: readonly Standing[];
}

/** One limit of a call while it is decided. */
interface Limit {
  readonly rule: Rule;
  readonly counter: string;
  readonly cost: number;
  /** What this and those before it that name the same limit take. */
  readonly units: number;
  readonly fits: boolean;
}

/** Decides about all of what is asked as one, and charges. The script for Redis does exactly the same. */
export function decide(memory: Memory, asks: readonly Ask[], charge: Charge, now: number): Decision {
  const limits: Limit[] = [];
  const ahead = new Map<string, number>();
  for (const { rule, key, cost } of asks) {
    const counter = counterName(rule, key);
    if (charge !== "never" && rule.algorithm !== "concurrency") takeOver(memory, rule, counter, now);
    const before = ahead.get(counter) ?? 0;
    // To ask with a cost of 0 is to ask whether anything is left.
    const units = before + Math.max(1, cost);
    const fits = waitOf(memory, rule, counter, now, units) === 0;
    // What is denied for want of room waits for all of what it asks for; a shadow that has no room is not charged.
    if (fits || charge === "always" || !rule.shadow) ahead.set(counter, before + cost);
    limits.push({ rule, counter, cost, units, fits });
  }
  const allowed = limits.every(({ rule, fits }) => fits || rule.shadow);
  const waits = () =>
    limits.map(({ rule, counter, units, fits }) => (fits ? 0 : waitOf(memory, rule, counter, now, units)));
  const before = waits();
  const charges = charge === "always" || (charge === "if_allowed" && allowed);
  if (charges) {
    for (const { rule, counter, cost, fits } of limits) {
      if (cost > 0 && (fits || charge === "always")) use(memory, rule, counter, now, cost);
    }
  }
  // What was charged although there was no room has to be waited for as well.
  const after = charge === "always" ? waits() : before;
  return {
    allowed,
    standings: limits.map(({ rule, counter }, i) => standing(memory, rule, counter, now, after[i] ?? 0)),
  };
}

/** Gives back in order. */
export function giveBackUnits(
  memory: Memory,
  asks: readonly Ask[],
  chargedAt: number,
  now: number,
): { readonly refunded: readonly number[]; readonly standings: readonly Standing[] } {
  const refunded = asks.map(({ rule, key, cost }) => {
    const counter = counterName(rule, key);
    const counting = countingOf(rule);
    const state = counting.moved(memory.counted(counter), rule, now);
    const { state: next, units } = counting.refunded(state, rule, now, chargedAt, cost);
    memory.keep(counter, next, counting.level(next, rule, now).resetAt);
    return units;
  });
  return { refunded, standings: asks.map(({ rule, key }) => standingFor(memory, rule, key, now, 1)) };
}

/** How a limit stands for so many units. */
export function standingFor(memory: Memory, rule: Rule, key: string, now: number, units: number): Standing {
  const counter = counterName(rule, key);
  return standing(memory, rule, counter, now, waitOf(memory, rule, counter, now, units));
}

function standing(memory: Memory, rule: Rule, counter: string, now: number, waitUs: number): Standing {
  const level: SlotLevel =
    rule.algorithm === "concurrency"
      ? slotLevel(memory.held(counter), rule.limit)
      : levelOf(memory, rule, counter, now);
  return {
    basis: "shared",
    limit: rule.burst,
    shadow: rule.shadow,
    waitUs: waitUs === Number.POSITIVE_INFINITY ? waitUs : bounded(waitUs),
    ...level,
    resetAt: level.resetAt && bounded(level.resetAt),
  };
}

/** In the year 2255. Not quite the largest whole number, by which what reads the replies of Redis is already wrong by one. */
const LAST_US = 9_000_000_000_000_000;

function bounded(us: number): number {
  return Math.min(us, LAST_US);
}

function levelOf(memory: Memory, rule: Rule, counter: string, now: number): SlotLevel {
  const counting = countingOf(rule);
  return counting.level(counting.moved(memory.counted(counter), rule, now), rule, now);
}

function waitOf(memory: Memory, rule: Rule, counter: string, now: number, units: number): number {
  if (rule.algorithm === "concurrency") return waitForSlots(memory.held(counter), rule.limit, now, units);
  const counting = countingOf(rule);
  return counting.waitFor(counting.moved(memory.counted(counter), rule, now), rule, now, units);
}

/** What was counted by another period is kept as it counts from now on: or else who is denied would be told another time at each call. */
function takeOver(memory: Memory, rule: Rule, counter: string, now: number): void {
  const state = memory.counted(counter);
  if (state !== undefined && state.periodUs !== rule.periodUs) use(memory, rule, counter, now, 0);
}

function use(memory: Memory, rule: Rule, counter: string, now: number, units: number): void {
  const counting = countingOf(rule);
  const state = counting.moved(memory.counted(counter), rule, now);
  const next = { ...state, used: Math.min(MOST_USED, state.used + units) };
  memory.keep(counter, next, counting.level(next, rule, now).resetAt);
}

function countingOf({ name, algorithm }: Rule): Counting {
  if (algorithm === "concurrency") throw new Error(`${name} limits concurrency, which is not charged`);
  return COUNTINGS[algorithm];
}
