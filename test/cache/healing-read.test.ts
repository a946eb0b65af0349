import { expect, it } from "vitest";
import { createHealer } from "../../src/cache/healer.ts";
import { createKept } from "../../src/cache/kept.ts";
import { createMemoryStore } from "../../src/cache/memory.ts";
import { createResilientStore } from "../../src/cache/resilient.ts";
import type { HotStore, Write } from "../../src/cache/store.ts";
import { createVersions } from "../../src/cache/version.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { noFences } from "./instance.ts";

it("does not answer with what the layer said before it was healed, when the answer comes after", async () => {
  const clock = systemClock;
  const versions = createVersions(clock);
  const log = createLog({ level: "silent" });
  const newStamp = () => versions.next();
  const refuge = createMemoryStore({ clock, newStamp, maxBytes: 1_000_000, log });
  const layer = createMemoryStore({ clock, newStamp, maxBytes: 1_000_000, log });
  const kept = createKept();
  let onRead = async () => {};
  const primary: HotStore = {
    ...layer,
    raise: async () => {},
    async read(namespace, keys) {
      const results = await layer.read(namespace, keys);
      await onRead();
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
  let isAway = false;
  const store = createResilientStore({
    primary,
    refuge,
    kept,
    healer,
    fences: noFences,
    newStamp,
    noteAbsence: () => {},
    guarded: (work) => (isAway ? Promise.reject(new UnavailableError("AWAY", "away")) : work()),
  });
  const write = (data: string): Write => {
    const life = { createdAt: clock.now(), expiresAt: undefined, staleUntil: undefined };
    const draft = { version: versions.next(), deleted: false, value: { data, contentType: "" }, tags: [], ...life };
    return { key: "k", draft, guard: { kind: "none" }, announce: "no" };
  };
  await store.write("n", [write("old")]);
  isAway = true;
  await store.write("n", [write("new")]);
  isAway = false;
  // The layer has answered with what is old, and all is healed before the answer arrives.
  onRead = async () => {
    onRead = async () => {};
    await healer.heal();
  };
  const [found] = await store.read("n", ["k"]);
  healer.close();
  expect(found?.record?.value.data).toBe("new");
});
