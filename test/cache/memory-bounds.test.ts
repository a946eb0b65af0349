import { expect, it } from "vitest";
import { createMemoryStore } from "../../src/cache/memory.ts";
import { createMemoryLeases } from "../../src/cache/memory-leases.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";

const MIB = 1024 * 1024;

function memoryTaken(): number {
  const { heapUsed, external, arrayBuffers } = process.memoryUsage();
  return heapUsed + external + arrayBuffers;
}

it("an empty memory store takes no memory for what it may hold one day", () => {
  const log = createLog({ level: "silent" });
  const before = memoryTaken();
  const stores = Array.from({ length: 50 }, () =>
    createMemoryStore({ clock: systemClock, newStamp: () => 1, maxBytes: 64 * MIB, log }),
  );
  expect((memoryTaken() - before) / stores.length).toBeLessThan(MIB);
});

it("leases in memory are bounded all the same: the eldest goes", async () => {
  const leases = createMemoryLeases(systemClock);
  const expiresAt = systemClock.now() + 3_600_000;
  for (let i = 0; i <= 100_000; i++) await leases.acquire("ns", `k${i}`, "token", expiresAt);
  expect(leases.holds("ns", "k0", "token")).toBe(false);
  expect(leases.holds("ns", "k1", "token")).toBe(true);
  expect(leases.holds("ns", "k100000", "token")).toBe(true);
});
