import { describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import type { Ask, Counters } from "../../src/ratelimit/counters.ts";
import { createFallbackLimits } from "../../src/ratelimit/fallback.ts";
import { createMemoryCounters } from "../../src/ratelimit/memory.ts";
import type { Rule } from "../../src/ratelimit/rule.ts";
import { createRuleBook } from "../../src/ratelimit/rule-book.ts";
import { createSharedLimiter } from "../../src/ratelimit/shared-limiter.ts";
import { movedClock } from "../support/moved-clock.ts";
import { ruleOf } from "./rules.ts";

/* Promises: without the shared counters every rule does what it says, at once; a call is still decided as one. */

const NAMESPACE = "default";

/** Shared counters that are away as long as `away` says, and an instance among so many. */
function start(instances: number) {
  const clock = movedClock();
  const memory = createMemoryCounters({ clock });
  const state = { away: true, asked: 0, leftAlone: undefined as number | undefined, instances };
  const gone = async () => {
    state.asked++;
    throw new UnavailableError("REDIS_UNAVAILABLE", "it is away", { retryAfterMs: 700 });
  };
  const orGone =
    <A extends unknown[], T>(call: (...args: A) => Promise<T>) =>
    (...args: A): Promise<T> =>
      state.away ? gone() : call(...args);
  const shared: Counters = {
    check: orGone(memory.check),
    refund: orGone(memory.refund),
    reset: orGone(memory.reset),
    acquire: orGone(memory.acquire),
    renew: orGone(memory.renew),
    giveBack: orGone(memory.giveBack),
  };
  const rules = createRuleBook([], 0);
  const fallback = createFallbackLimits({
    local: createMemoryCounters({ clock }),
    rules,
    instances: () => state.instances,
    nowUs: () => clock.now() * 1_000,
  });
  const limiter = createSharedLimiter({ shared, fallback, leftAlone: () => state.leftAlone, rules });
  const check = (...asks: Ask[]) => limiter.check(NAMESPACE, asks, "if_allowed", undefined);
  return { state, limiter, check, clock };
}

const ask = (rule: Rule, cost = 1): Ask => ({ rule, key: "k", cost });

describe("without shared counters", () => {
  it("an instance allows its share of a limit and of a burst, and at least 1", async () => {
    const { check, state } = start(3);
    const bucket = ruleOf("token_bucket", 100, { burst: 10 });
    const [standing] = (await check(ask(bucket))).standings;
    expect(standing).toMatchObject({ basis: "local_share", limit: 3, remaining: 2 });
    const [small] = (await check(ask(ruleOf("fixed_window", 2, { name: "small" })))).standings;
    expect(small).toMatchObject({ limit: 1, remaining: 0 });
    state.instances = 1;
    const [whole] = (await check(ask(bucket))).standings;
    expect(whole).toMatchObject({ limit: 10, remaining: 8 });
  });

  it("what only a share is too small for may be had when they are tried again, and what the limit is too small for never", async () => {
    const { check } = start(5);
    const rule = ruleOf("token_bucket", 10);
    expect((await check(ask(rule, 3))).standings).toMatchObject([{ limit: 2, waitUs: 700_000 }]);
    expect((await check(ask(rule, 11))).standings).toMatchObject([{ waitUs: Number.POSITIVE_INFINITY }]);
    expect((await check(ask(rule, 2))).allowed).toBe(true);
  });

  it("what one rule denies is not charged to another, unless it is to be charged always", async () => {
    const { check, limiter } = start(1);
    const counted = ruleOf("fixed_window", 5, { name: "counted" });
    const closed = ruleOf("fixed_window", 5, { name: "closed", fallback: "closed" });
    const open = ruleOf("fixed_window", 5, { name: "open", fallback: "open" });
    const denied = await check(ask(counted), ask(open), ask(closed));
    expect(denied.allowed).toBe(false);
    expect(denied.standings).toMatchObject([
      { basis: "local_share", waitUs: 0, remaining: 5 },
      { basis: "open", waitUs: 0, limit: 5, remaining: 5, resetAt: undefined },
      { basis: "closed", waitUs: 700_000, limit: 5, remaining: 0, resetAt: undefined },
    ]);
    const always = await limiter.check(NAMESPACE, [ask(closed), ask(counted, 7)], "always", undefined);
    expect(always).toMatchObject({ allowed: false, standings: [{}, { remaining: 0, overdrawn: 2 }] });
  });

  it("a shadow rule that fails closed denies nothing", async () => {
    const { check } = start(1);
    const closed = ruleOf("fixed_window", 5, { name: "closed", fallback: "closed", shadow: true });
    const { allowed, standings } = await check(ask(closed), ask(ruleOf("fixed_window", 2)));
    expect({ allowed, standings }).toMatchObject({ allowed: true, standings: [{ waitUs: 700_000 }, { remaining: 1 }] });
  });

  it("nobody asks them while they are left alone, and what is closed is so until they are tried again", async () => {
    const { check, state } = start(1);
    state.leftAlone = 2_500;
    const { standings } = await check(ask(ruleOf("fixed_window", 5, { fallback: "closed" })));
    expect(standings).toMatchObject([{ waitUs: 2_500_000 }]);
    expect(state.asked).toBe(0);
  });

  it("what this instance counted by itself is refunded to it, and nothing else is", async () => {
    const { limiter, check } = start(1);
    const counted = ruleOf("fixed_window", 5, { name: "counted" });
    const open = ruleOf("fixed_window", 5, { name: "open", fallback: "open" });
    await check(ask(counted, 3));
    const refund = await limiter.refund(NAMESPACE, [ask(open, 4), ask(counted, 4)], undefined, undefined);
    expect(refund).toMatchObject({ refunded: [0, 3], standings: [{ basis: "open" }, { remaining: 5 }] });
  });

  it("slots are shared out too, under a lease that goes on when the shared counters are back", async () => {
    const { limiter, state } = start(2);
    const jobs = ruleOf("concurrency", 4, { name: "jobs" });
    const order = { ttlMs: 10_000, request: undefined };
    const { lease, standings } = await limiter.acquire(NAMESPACE, [ask(jobs, 2)], order);
    expect(standings).toMatchObject([{ basis: "local_share", limit: 2, remaining: 0 }]);
    expect((await limiter.acquire(NAMESPACE, [ask(jobs)], order)).allowed).toBe(false);
    state.away = false;
    const id = lease?.id ?? "";
    const renewed = await limiter.renew(NAMESPACE, id, 20_000);
    expect(renewed).toMatchObject({ allowed: true, standings: [{ basis: "local_share", limit: 2, remaining: 0 }] });
    expect(await limiter.giveBack(NAMESPACE, id)).toBe(true);
    expect(await limiter.renew(NAMESPACE, id, 20_000)).toBeUndefined();
  });

  it("reset forgets what this instance counted by itself as soon as the shared counters are there", async () => {
    const { limiter, check, state } = start(1);
    const rule = ruleOf("fixed_window", 5);
    await check(ask(rule, 5));
    await expect(limiter.reset(NAMESPACE, [ask(rule)])).rejects.toMatchObject({
      reason: "REDIS_UNAVAILABLE",
      retryAfterMs: 700,
    });
    state.away = false;
    await limiter.reset(NAMESPACE, [ask(rule)]);
    state.away = true;
    expect((await check(ask(rule))).standings).toMatchObject([{ remaining: 4 }]);
  });
});
