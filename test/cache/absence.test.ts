import { describe, expect, it, onTestFinished } from "vitest";
import { createDurableStore } from "../../src/cache/durable.ts";
import { createHealer } from "../../src/cache/healer.ts";
import { createKept } from "../../src/cache/kept.ts";
import { createMemoryStore } from "../../src/cache/memory.ts";
import { createResilientStore } from "../../src/cache/resilient.ts";
import type { CacheStore, HotStore } from "../../src/cache/store.ts";
import { createVersions } from "../../src/cache/version.ts";
import { createAbsenceNotes } from "../../src/infra/absence.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { RedisReplyError } from "../../src/infra/redis-failure.ts";
import { movedClock } from "../support/moved-clock.ts";
import { noFences, silent } from "./instance.ts";

/** Both ways of standing in for a layer, over one that fails as a test says. */
function setup(error: () => unknown) {
  const clock = movedClock();
  const versions = createVersions(clock);
  const lines: string[] = [];
  const log = createLog({ level: "warn", destination: { write: (line) => lines.push(line) } });
  const refuge = createMemoryStore({ clock, newStamp: () => versions.next(), maxBytes: 1_000_000, log: silent });
  const kept = createKept();
  const primary: HotStore = { ...refuge, raise: async () => {} };
  const healer = createHealer({
    primary,
    refuge,
    kept,
    isDurable: () => false,
    reachable: () => false,
    now: () => clock.now(),
    log: silent,
    sweepMs: 3_600_000,
  });
  onTestFinished(() => healer.close());
  const shared = {
    kept,
    healer,
    guarded: () => Promise.reject(error()),
    noteAbsence: createAbsenceNotes("the cache", log, clock),
  };
  const stores: Record<string, CacheStore> = {
    resilient: createResilientStore({ ...shared, primary, refuge, fences: noFences, newStamp: () => versions.next() }),
    durable: createDurableStore({ ...shared, hot: primary, truth: refuge, now: () => clock.now() }),
  };
  return { clock, lines, stores };
}

describe.each(["resilient", "durable"])("a %s layer", (which) => {
  it.each([
    ["is away", () => new UnavailableError("REDIS_UNAVAILABLE", "away")],
    ["refuses a command", () => new RedisReplyError("WRONGTYPE", "another kind")],
  ])("that %s is stood in for without a word", async (_, error) => {
    const { lines, stores } = setup(error);
    expect(await stores[which]?.read("n", ["k"])).toMatchObject([{ degraded: true }]);
    expect(lines).toEqual([]);
  });

  it("that fails in a way nobody thought of is stood in for, and the log says why", async () => {
    const { clock, lines, stores } = setup(() => new TypeError("a defect"));
    for (let i = 0; i < 5; i++) expect(await stores[which]?.read("n", ["k"])).toMatchObject([{ degraded: true }]);
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { level: "error", err: { type: "TypeError", message: "a defect" }, times: 1 },
    ]);
    clock.move(11_000);
    await stores[which]?.read("n", ["k"]);
    expect(lines.map((line) => JSON.parse(line).times)).toEqual([1, 5]);
  });
});
