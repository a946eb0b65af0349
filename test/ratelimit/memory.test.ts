import { describe, expect, it } from "vitest";
import { createMemoryCounters } from "../../src/ratelimit/memory.ts";
import { MemoryTable } from "../../src/ratelimit/memory-table.ts";
import { movedClock } from "../support/moved-clock.ts";
import { ruleOf } from "./rules.ts";

describe("what an instance keeps in its memory", () => {
  it("ends by itself, and is taken out as other things come", () => {
    const table = new MemoryTable<number>({ entries: 1_000, bytes: 1e6 });
    for (let n = 0; n < 100; n++) table.set(`old ${n}`, n, 10, 0);
    expect([table.get("old 1", 9), table.get("old 1", 10)]).toEqual([1, undefined]);
    for (let n = 0; n < 100; n++) table.set(`new ${n}`, n, 30, 20);
    expect(table.size).toBe(100);
  });

  it("is bounded: what was set longest ago goes first", () => {
    const table = new MemoryTable<number>({ entries: 3, bytes: 1e6 });
    for (const name of ["a", "b", "c"]) table.set(name, 1, 100, 0);
    table.set("a", 2, 100, 0);
    table.set("d", 1, 100, 0);
    expect(["a", "b", "c", "d"].map((name) => table.get(name, 0))).toEqual([2, undefined, 1, 1]);
  });

  it("is bounded in bytes as well, since names come from callers", () => {
    const table = new MemoryTable<number>({ entries: 1_000, bytes: 10_000 });
    for (let n = 0; n < 100; n++) table.set(`${n} ${"x".repeat(1_000)}`, n, 100, 0);
    expect(table.size).toBe(4);
    for (let n = 0; n < 60; n++) table.set(`${n}`, n, 100, 0);
    expect([table.size, table.get("0", 0), table.get("59", 0)]).toEqual([60, 0, 59]);
  });

  it("frees the slots of a lease that it has no room for, so that what is held is bounded too", async () => {
    const counters = createMemoryCounters({ clock: movedClock(), bounds: { entries: 3, bytes: 1e6 } });
    const asks = [{ rule: ruleOf("concurrency", 10), key: "k", cost: 1 }];
    const take = (leaseId: string) =>
      counters.acquire("default", asks, { leaseId, ttlMs: 60_000, asks: "", request: undefined });
    for (const id of ["a", "b", "c", "d"]) await take(id);
    expect(await counters.renew("default", "a", 60_000)).toBeUndefined();
    expect((await counters.check("default", asks, "never", undefined)).standings).toMatchObject([{ remaining: 7 }]);
    expect(await counters.giveBack("default", "b")).toBe(true);
  });

  it("has the answers to requests that named themselves for as long as is promised", async () => {
    const clock = movedClock();
    const counters = createMemoryCounters({ clock });
    const request = { id: "attempt", meaning: "the same" };
    const asks = [{ rule: ruleOf("fixed_window", 100, { periodUs: 86_400_000_000 }), key: "k", cost: 1 }];
    const check = () => counters.check("default", asks, "if_allowed", request);
    const first = await check();
    clock.move(59_999);
    expect(await check()).toEqual(first);
    clock.move(1);
    expect((await check()).standings).toMatchObject([{ remaining: 98 }]);
    const other = counters.check("default", asks, "if_allowed", { id: "attempt", meaning: "another" });
    await expect(other).rejects.toMatchObject({ reason: "REQUEST_ID_REUSED" });
  });
});
