import { describe, expect, it } from "vitest";
import type { Ask, Charge } from "../../src/ratelimit/counters.ts";
import { createMemoryCounters } from "../../src/ratelimit/memory.ts";
import type { Rule } from "../../src/ratelimit/rule.ts";
import { movedClock } from "../support/moved-clock.ts";
import { ruleOf } from "./rules.ts";

/* Promises: all of a call is decided as one; what that means for limits named twice, costs of 0, shadows and costs known afterwards. */

const DAY = 86_400_000_000;

function start() {
  const clock = movedClock();
  // From the beginning of a window on.
  clock.move(DAY / 1_000 - (clock.now() % (DAY / 1_000)));
  const counters = createMemoryCounters({ clock });
  const check = (asks: readonly Ask[], charge: Charge = "if_allowed") =>
    counters.check("default", asks, charge, undefined);
  const remaining = async (rule: Rule) => (await check([ask(rule)], "never")).standings[0]?.remaining;
  return { check, remaining, clock, counters };
}

const ask = (rule: Rule, cost = 1): Ask => ({ rule, key: "k", cost });
const five = ruleOf("fixed_window", 5, { name: "five", periodUs: DAY });
const ten = ruleOf("token_bucket", 10, { name: "ten", periodUs: 10_000_000 });

describe("a call", () => {
  it("is charged to every limit or to none", async () => {
    const { check, remaining } = start();
    const denied = await check([ask(ten, 4), ask(five, 6)]);
    expect(denied).toMatchObject({ allowed: false, standings: [{ waitUs: 0, remaining: 10 }, { remaining: 5 }] });
    expect(denied.standings[1]?.waitUs).toBe(Number.POSITIVE_INFINITY);
    await check([ask(ten, 4), ask(five, 5)]);
    expect([await remaining(ten), await remaining(five)]).toEqual([6, 0]);
  });

  it("that names a limit twice is charged twice, and has to wait for both", async () => {
    const { check, remaining } = start();
    expect(await check([ask(ten, 6), ask(ten, 5)])).toMatchObject({
      allowed: false,
      standings: [{ waitUs: 0 }, { waitUs: Number.POSITIVE_INFINITY }],
    });
    await check([ask(ten, 3), ask(ten, 3)]);
    expect(await remaining(ten)).toBe(4);
    const { allowed, standings } = await check([ask(ten, 4), ask(ten, 2)]);
    // Two more units have to flow in, of which one comes each second.
    expect([allowed, standings.map(({ waitUs }) => waitUs)]).toEqual([false, [0, 2_000_000]]);
  });

  it("with a cost of 0 takes nothing, and is allowed while anything is left", async () => {
    const { check, remaining } = start();
    await check([ask(five, 4)]);
    expect((await check([ask(five, 0)])).allowed).toBe(true);
    expect(await remaining(five)).toBe(1);
    await check([ask(five)]);
    expect((await check([ask(five, 0)])).allowed).toBe(false);
  });

  it("charged always goes past the limit, and what is overdrawn has to be made up for", async () => {
    const { check, clock } = start();
    const { allowed, standings } = await check([ask(ten, 13)], "always");
    expect([allowed, standings]).toMatchObject([false, [{ remaining: 0, overdrawn: 3 }]]);
    const { standings: after } = await check([ask(ten, 2)]);
    expect(after[0]?.waitUs).toBe(5_000_000);
    clock.move(4_999);
    expect((await check([ask(ten, 2)])).allowed).toBe(false);
    clock.move(1);
    expect((await check([ask(ten, 2)])).allowed).toBe(true);
  });

  it("tells how long to wait after a charge past the limit, which counts as well", async () => {
    const { check } = start();
    await check([ask(ten, 8)]);
    const { standings } = await check([ask(ten, 4)], "always");
    // 12 of 10 are used now: the same again takes 6 units to flow in.
    expect(standings[0]?.waitUs).toBe(6_000_000);
  });

  it("of shadows is allowed whatever they say: one that has room is charged, one that has none is not", async () => {
    const { check, remaining } = start();
    const [small, large] = [
      { ...five, shadow: true },
      { ...ten, shadow: true },
    ];
    const { allowed, standings } = await check([ask(small, 6), ask(large, 6)]);
    expect(allowed).toBe(true);
    expect(standings.map(({ waitUs }) => waitUs === 0)).toEqual([false, true]);
    expect([await remaining(five), await remaining(ten)]).toEqual([5, 4]);
    const mixed = await check([ask(large, 1), ask(five, 6)]);
    expect([mixed.allowed, await remaining(ten)]).toEqual([false, 4]);
  });

  it("that only looks changes nothing", async () => {
    const { check, remaining } = start();
    for (let n = 0; n < 3; n++) expect((await check([ask(five, 5)], "never")).allowed).toBe(true);
    expect(await remaining(five)).toBe(5);
  });
});

describe("counters", () => {
  it("are apart for namespaces, keys, algorithms, and rules that come with requests", async () => {
    const { check, remaining, counters } = start();
    await check([ask(five, 5)]);
    const others: Rule[] = [
      { ...five, inline: true },
      { ...five, algorithm: "sliding_window" },
      { ...five, name: "five:k" },
    ];
    for (const other of others) expect(await remaining(other)).toBe(5);
    const elsewhere = await counters.check("elsewhere", [ask(five)], "never", undefined);
    const { standings } = await check([{ rule: five, key: "other", cost: 1 }], "never");
    expect([elsewhere.standings[0]?.remaining, standings[0]?.remaining]).toEqual([5, 5]);
  });
});

describe("a lease", () => {
  const jobs = ruleOf("concurrency", 3, { name: "jobs" });
  const machines = ruleOf("concurrency", 2, { name: "machines" });
  const order = (leaseId: string, ttlMs = 10_000) => ({ leaseId, ttlMs, asks: "", request: undefined });

  it("takes slots of all limits or of none, until it ends, is returned or reset", async () => {
    const { counters, remaining, clock } = start();
    const take = (id: string, ...asks: Ask[]) => counters.acquire("default", asks, order(id));
    await take("a", ask(jobs, 2), ask(machines));
    const none = await take("b", ask(jobs), ask(machines, 2));
    expect(none).toMatchObject({
      allowed: false,
      lease: undefined,
      standings: [{ waitUs: 0 }, { waitUs: 10_000_000 }],
    });
    expect([await remaining(jobs), await remaining(machines)]).toEqual([1, 1]);
    expect(await counters.giveBack("elsewhere", "a")).toBe(false);
    expect(await counters.giveBack("default", "a")).toBe(true);
    await take("c", ask(jobs, 3));
    await take("d", ask(machines, 2));
    await counters.reset("default", [ask(jobs)]);
    expect(await counters.renew("default", "c", 1_000)).toBeUndefined();
    expect([await remaining(jobs), await remaining(machines)]).toEqual([3, 0]);
    clock.move(10_000);
    expect(await remaining(machines)).toBe(2);
    expect(await counters.renew("default", "d", 1_000)).toBeUndefined();
  });

  it("that is reset in one limit is over in the others", async () => {
    const { counters, remaining } = start();
    await counters.acquire("default", [ask(jobs, 2), ask(machines, 2)], order("a"));
    await counters.reset("default", [ask(jobs)]);
    expect([await remaining(jobs), await remaining(machines)]).toEqual([3, 2]);
  });

  it("is never made shorter, and says when enough slots run out", async () => {
    const { counters, clock } = start();
    await counters.acquire("default", [ask(jobs)], order("short", 2_000));
    await counters.acquire("default", [ask(jobs, 2)], order("long", 5_000));
    const wait = async (slots: number) =>
      (await counters.acquire("default", [ask(jobs, slots)], order("more"))).standings[0]?.waitUs;
    expect([await wait(1), await wait(2), await wait(4)]).toEqual([2_000_000, 5_000_000, Number.POSITIVE_INFINITY]);
    const end = (await counters.renew("default", "long", 1_000))?.lease.expiresAt;
    expect(end).toBe((clock.now() + 5_000) * 1_000);
    expect((await counters.renew("default", "long", 9_000))?.lease.expiresAt).toBe((clock.now() + 9_000) * 1_000);
  });
});
