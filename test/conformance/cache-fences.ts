import { describe, expect, it } from "vitest";
import type { Draft } from "../../src/cache/record.ts";
import type { CacheStore, Guard, Write, WriteResult } from "../../src/cache/store.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { type FencedWrite, staleWrites } from "../support/fenced-history.ts";
import { until } from "../support/until.ts";

/** What the suite of stores lends to its part about fences. */
export interface FencesBench {
  readonly store: () => CacheStore;
  /** As another instance has it. */
  readonly open: () => CacheStore;
  readonly newNamespace: () => string;
  readonly draft: (data: string) => Draft;
  readonly value: (namespace: string, key: string) => Promise<unknown>;
  /** The next of the version clock. */
  readonly now: () => number;
  /** What other instances were told of the namespace. Undefined where there are none. */
  readonly heard: (namespace: string) => readonly string[] | undefined;
}

/** `none`: the store has no fences. `key`: a token is compared with those that came to the same key. */
export type FenceScope = "all keys" | "key" | "none";

/** Under the token, having asked for newer ones just now where the store wants that: the suite is its own truth of fences. */
export async function writeUnder(
  store: CacheStore,
  namespace: string,
  writes: readonly Write[],
  [lock, token]: readonly [lock: string, token: number],
  now: () => number,
): Promise<WriteResult[]> {
  for (;;) {
    const fence = { lock, token, askedAt: now() };
    const results = await store.write(
      namespace,
      writes.map((write) => ({ ...write, fence })),
    );
    if (results.every((result) => result.stored || result.why !== "forgotten")) return results;
  }
}

export function describeFences(bench: FencesBench, scope: FenceScope): void {
  const { newNamespace, draft, value, now } = bench;
  let locks = 0;
  const newLock = () => `conformance/${process.pid} ${locks++}%}{:é`;

  function order(key: string, data: string, more: Partial<Write> = {}): Write {
    return { key, draft: draft(data), guard: { kind: "none" }, announce: "set", ...more };
  }

  async function write(namespace: string, one: Write, fence: readonly [string, number], on = bench.store()) {
    const [result] = await writeUnder(on, namespace, [one], fence, now);
    if (result === undefined) throw new Error("a write got no result");
    return result;
  }

  if (scope === "none") {
    it("refuses what is written under a lock, since it does not know which tokens came", async () => {
      const ns = newNamespace();
      await expect(write(ns, order("k", "v"), [newLock(), 1])).rejects.toThrow(UnavailableError);
      expect(await value(ns, "k")).toBeUndefined();
    });
    return;
  }

  describe("a write under a lock", () => {
    it("is stored under the newest token and all that are newer, through whichever instance", async () => {
      const [ns, lock] = [newNamespace(), newLock()];
      for (const [i, token] of [1, 1, 2, 2 ** 32 + 7, 2 ** 53 - 2, 2 ** 53 - 1].entries()) {
        expect(await write(ns, order("k", `${i}`), [lock, token], bench.open())).toMatchObject({ stored: true });
        expect(await value(ns, "k")).toBe(`${i}`);
      }
    });

    const guards: [string, (seen: number) => Guard][] = [
      ["no guard", () => ({ kind: "none" })],
      ["an order", () => ({ kind: "none", ordered: true })],
      ["the version that is there", (seen) => ({ kind: "version", seen })],
      ["a version that is not there", () => ({ kind: "version", seen: 5 })],
      ["a copy's guard", () => ({ kind: "newer" })],
    ];

    it.each(guards)("is refused under an older token, with %s, and told the newest", async (_, guard) => {
      const [ns, lock] = [newNamespace(), newLock()];
      const first = await write(ns, order("k", "newer"), [lock, 2 ** 53 - 1]);
      if (!first.stored) throw new Error(first.why);
      const stale = order("k", "older", { guard: guard(first.version) });
      const result = await write(ns, stale, [lock, 2 ** 53 - 2], bench.open());
      expect(result).toMatchObject({ stored: false, why: "fenced", newest: 2 ** 53 - 1 });
      expect(await value(ns, "k")).toBe("newer");
    });

    it("changes nothing when it is refused: no value, no lease, no answer for a retry, no word to others", async () => {
      const [ns, lock] = [newNamespace(), newLock()];
      const first = await write(ns, order("k", "newer"), [lock, 2]);
      const seen = first.stored ? first.version : 0;
      await bench.store().acquireLease(ns, "k", `${seen}.1.${"a".repeat(16)}`, now() + 60_000);
      const request = { id: "r", answer: "stale", expiresAt: now() + 60_000 };
      const stale = order("k", "older", { request, draft: { ...draft("older"), tags: ["t"] } });
      expect(await write(ns, stale, [lock, 1])).toMatchObject({ why: "fenced" });
      expect(await bench.store().read(ns, ["k"])).toMatchObject([{ record: { version: seen, tags: [] }, valid: true }]);
      expect(await bench.store().recall(ns, "k", "r")).toBeUndefined();
      const other = `${seen}.1.${"b".repeat(16)}`;
      expect(await bench.store().acquireLease(ns, "k", other, now() + 60_000)).toMatchObject({ granted: false });
      expect(await write(ns, order("k", "newest"), [lock, 3])).toMatchObject({ stored: true });
      if (bench.heard(ns) === undefined) return;
      // What comes later is heard later.
      await until(() => (bench.heard(ns) ?? []).length >= 2, { what: "both to be heard of" });
      expect(bench.heard(ns)).toHaveLength(2);
    });

    it("leaves its answer for a retry, and is held to its guard and its lease as any other", async () => {
      const [ns, lock] = [newNamespace(), newLock()];
      const request = { id: "r", answer: "stored", expiresAt: now() + 60_000 };
      const guard: Guard = { kind: "version", seen: 0 };
      const first = await write(ns, order("k", "1", { request, guard }), [lock, 1]);
      expect(first).toMatchObject({ stored: true });
      expect(await bench.store().recall(ns, "k", "r")).toBe("stored");
      expect(await write(ns, order("k", "2", { guard }), [lock, 1])).toMatchObject({ why: "version" });
      const lease: Guard = { kind: "lease", token: `1.1.${"a".repeat(16)}`, seen: 1, grantedAt: now() };
      expect(await write(ns, order("k", "2", { guard: lease }), [lock, 1])).toMatchObject({ why: "lease" });
      expect(await value(ns, "k")).toBe("1");
    });

    it("has nothing to do with writes under other locks, nor with those under none", async () => {
      const [ns, lock] = [newNamespace(), newLock()];
      await write(ns, order("k", "1"), [lock, 100]);
      expect(await write(ns, order("k", "2"), [`${lock}2`, 1])).toMatchObject({ stored: true });
      expect(await bench.store().write(ns, [order("k", "3")])).toMatchObject([{ stored: true }]);
      expect(await write(ns, order("k", "4"), [lock, 99])).toMatchObject({ why: "fenced" });
    });

    it("of several keys is refused for each, also for those that no newer token came to", async ({ skip }) => {
      if (scope === "key") skip("each key has a fence of its own");
      const [ns, lock] = [newNamespace(), newLock()];
      await write(newNamespace(), order("elsewhere", "newer"), [lock, 2]);
      const orders = ["b", "a", "c"].map((key) => order(key, "older"));
      const results = await writeUnder(bench.store(), ns, orders, [lock, 1], now);
      expect(results).toMatchObject(orders.map(() => ({ stored: false, why: "fenced", newest: 2 })));
      expect(await Promise.all(["a", "b", "c"].map((key) => value(ns, key)))).toEqual([
        undefined,
        undefined,
        undefined,
      ]);
      const newer = await writeUnder(bench.store(), ns, orders, [lock, 2], now);
      expect(newer).toMatchObject(orders.map(() => ({ stored: true })));
    });

    it("is never stored after one with a newer token, however they race", async () => {
      const ns = newNamespace();
      const history: FencedWrite[] = [];
      const lock = newLock();
      let granted = 0;
      let moment = 0;
      /** Each goes on for a while after the next has been granted the lock. */
      async function hold(on: CacheStore): Promise<void> {
        const token = ++granted;
        for (let i = 0; i < 6; i++) {
          const began = ++moment;
          const value = `${token} ${i}`;
          const result = await write(ns, order("k", value), [lock, token], on);
          history.push({ lock, key: "k", token, value, began, ended: ++moment, stored: result.stored });
        }
      }
      const holders = Array.from({ length: 20 }, async (_, i) => {
        for (let wait = 0; wait < i; wait++) await bench.store().read(ns, ["k"]);
        await hold(bench.open());
      });
      await Promise.all(holders);
      expect(staleWrites(history)).toEqual([]);
      expect(history.some(({ stored }) => !stored)).toBe(true);
      expect(String(await value(ns, "k")).split(" ")[0]).toBe("20");
    });
  });
}
