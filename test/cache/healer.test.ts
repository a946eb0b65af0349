import { expect, it } from "vitest";
import { createHealer } from "../../src/cache/healer.ts";
import { createKept } from "../../src/cache/kept.ts";
import { createMemoryStore } from "../../src/cache/memory.ts";
import type { HotStore, Write } from "../../src/cache/store.ts";
import { createVersions } from "../../src/cache/version.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";

it("ends a healing although something new is kept during each of its steps, and goes on believing nothing about that", async () => {
  const clock = systemClock;
  const versions = createVersions(clock);
  const log = createLog({ level: "silent" });
  const newStamp = () => versions.next();
  const refuge = createMemoryStore({ clock, newStamp, maxBytes: 1_000_000, log });
  const layer = createMemoryStore({ clock, newStamp, maxBytes: 1_000_000, log });
  const kept = createKept();
  let changes = 0;

  function change(): Write {
    const value = { data: String(changes), contentType: "" };
    const life = { createdAt: clock.now(), expiresAt: undefined, staleUntil: undefined };
    const draft = { version: versions.next(), deleted: false, value, tags: [], ...life };
    return { key: `k${changes++}`, draft, guard: { kind: "none" }, announce: "no" };
  }

  async function keep(): Promise<void> {
    const write = change();
    kept.addKeys("n", [write.key]);
    await refuge.keep("n", [write]);
  }

  const primary: HotStore = {
    ...layer,
    raise: async () => {},
    async write(namespace, writes) {
      const results = await layer.write(namespace, writes);
      await keep();
      return results;
    },
  };
  const healer = createHealer({
    primary,
    refuge,
    kept,
    isDurable: () => false,
    reachable: () => false,
    now: () => clock.now(),
    log,
    sweepMs: 3_600_000,
  });
  await keep();
  await healer.heal();
  healer.close();
  const [first] = await layer.read("n", ["k0"]);
  expect(first?.record?.value.data).toBe("0");
  expect(kept.hasKey("n", "k0")).toBe(false);
  const left = await refuge.unhealed(100);
  expect(left.length).toBeGreaterThan(0);
  for (const { key } of left) expect(kept.hasKey("n", key)).toBe(true);
});
