import { expect, it } from "vitest";
import { startEmbedded } from "./embedded.ts";

const signal = AbortSignal.timeout(60_000);

it("warming loads what there is room for, and nothing that is in memory has to go for it", async () => {
  const writer = await startEmbedded();
  const key = (i: number) => `k${String(i).padStart(3, "0")}`;
  for (let i = 0; i < 150; i++) await writer.put(key(i), "x".repeat(1_000));
  const { database, clock } = writer;
  const reader = await startEmbedded({ database, clock, l1Bytes: 100_000, policy: { l1TtlMs: 3_600_000 } });
  const { cache, namespace } = reader;
  const inUse = Array.from({ length: 30 }, (_, i) => key(149 - i));
  for (const one of inUse) await cache.reads.get(namespace, one, false);

  const { loaded, l1Full } = await cache.warmer.warm(namespace, ["k*"], signal);
  expect(l1Full).toBe(true);
  expect(loaded).toBeGreaterThan(10);
  expect(namespace.counters.l1Evictions).toBe(0);
  expect(cache.l1.entries).toBe(30 + loaded);
  for (const one of inUse) expect(cache.reads.fromMemory(namespace, one)).toBeDefined();
});

it("warming says that everything is loaded when it is", async () => {
  const { cache, namespace, put } = await startEmbedded({ policy: { l1TtlMs: 3_600_000 } });
  for (let i = 0; i < 250; i++) await put(`k${i}`, "v");
  cache.l1.dropNamespace(namespace);
  expect(await cache.warmer.warm(namespace, ["k1", "k2*", "none"], signal)).toEqual({ loaded: 62, l1Full: false });
});
