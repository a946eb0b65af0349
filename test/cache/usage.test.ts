import { expect, it, onTestFinished } from "vitest";
import { createUsage } from "../../src/cache/metrics.ts";
import { createMetrics } from "../../src/infra/metrics.ts";
import { startEmbedded } from "./embedded.ts";

const TWO_KB = { data: "x".repeat(2_000), contentType: "" };

it("the gauges of memory say what it holds, also of namespaces that are forgotten", async () => {
  const { cache } = await startEmbedded({ policy: { l1TtlMs: 3_600_000 }, l1Bytes: 1_000_000 });
  const metrics = createMetrics({ defaults: false });
  const usage = createUsage({ cache, metrics, unhealed: async () => 0, breaker: undefined });
  onTestFinished(() => usage.close());
  const gauge = async (name: string) =>
    Number(new RegExp(`^${name} (-?\\d+)$`, "m").exec(await metrics.text())?.[1] ?? Number.NaN);

  const write = (name: string) => {
    const order = { key: "k", value: TWO_KB, expiry: "never", tags: [], ifAbsent: false, leaseToken: "" } as const;
    return cache.set(cache.namespaces.get(name), [order]);
  };
  for (let i = 0; i < 100; i++) await write(`used-${i}`);
  expect(await gauge("holdfast_cache_l1_entries")).toBe(100);
  for (let i = 0; i < 10_000; i++) cache.namespaces.get(`named-${i}`);
  expect(cache.namespaces.peek("used-0")).toBeUndefined();
  expect(await gauge("holdfast_cache_l1_entries")).toBe(100);
  // What the forgotten ones had goes as others need the room.
  for (let i = 0; i < 1_000; i++) await write(`later-${i}`);
  expect(await gauge("holdfast_cache_l1_entries")).toBe(cache.l1.entries);
  expect(await gauge("holdfast_cache_l1_bytes")).toBe(cache.l1.bytes);
  expect(cache.l1.entries).toBeGreaterThan(100);
  expect(await metrics.text()).toContain('holdfast_cache_writes_total{kind="set"} 1100');
});
