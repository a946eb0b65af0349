import { describe, expect, it } from "vitest";
import { createVersions } from "../../src/cache/version.ts";
import { createLocalBackplane, createLocalHub } from "../../src/infra/backplane-local.ts";
import { movedClock } from "../support/moved-clock.ts";
import { until } from "../support/until.ts";
import { startEmbedded } from "./embedded.ts";

const HOUR = 3_600_000;
const wish = () => ({ ttlMs: 60_000, waitMs: 60_000, signal: AbortSignal.timeout(60_000) });

describe("past the eager refresh threshold", () => {
  it.each([
    ["in memory", HOUR],
    ["in the shared layer", 0],
  ])("one reader of a value %s is given a lease beside it, before it expires", async (_, l1TtlMs) => {
    const { cache, namespace, put, clock } = await startEmbedded({ policy: { eagerRefresh: 0.8, l1TtlMs } });
    const read = () => cache.reads.getOrLease(namespace, "k", false, wish());
    await put("k", "v", 100_000);
    clock.move(79_000);
    expect((await read()).lease).toBeUndefined();
    clock.move(2_000);
    expect(await read()).toMatchObject({ outcome: "hit", lease: {} });
    const other = await read();
    expect(other).toMatchObject({ outcome: "hit" });
    expect(other.lease).toBeUndefined();
  });

  it("nobody is, where the policy does not say so", async () => {
    const { cache, namespace, put, clock } = await startEmbedded();
    await put("k", "v", 100_000);
    clock.move(99_000);
    expect((await cache.reads.getOrLease(namespace, "k", false, wish())).lease).toBeUndefined();
  });
});

it("jitter takes up to its share off a ttl, and never adds to it", async () => {
  const randoms = [0, 0.5, 0.999];
  const random = () => randoms.shift() ?? 0;
  const { cache, namespace, put, clock } = await startEmbedded({ policy: { jitter: 0.2 }, random });
  const left: number[] = [];
  for (const key of ["a", "b", "c"]) {
    await put(key, "v", 100_000);
    const { record } = await cache.reads.get(namespace, key, true);
    left.push((record?.expiresAt ?? 0) - clock.now());
  }
  expect(left).toEqual([100_000, 90_000, 80_020]);
});

it("instances tell each other the version they have reached, so that the later change has the larger one", async () => {
  const hub = createLocalHub();
  const ahead = movedClock();
  ahead.move(HOUR);
  const one = await startEmbedded({ clock: ahead, backplane: createLocalBackplane({ hub }) });
  const other = await startEmbedded({ backplane: createLocalBackplane({ hub }) });
  const reached = one.versions.next();
  await until(() => other.versions.next() > reached, { what: "the other instance to hear of it" });
});

it("a version that no working clock gives does not drag all later ones along", () => {
  const clock = movedClock();
  const versions = createVersions(clock);
  const first = versions.next();
  versions.observe(Number.MAX_SAFE_INTEGER - 1);
  expect(versions.next()).toBeLessThan(first + 10);
  versions.observe(first + 1_000_000);
  expect(versions.next()).toBe(first + 1_000_001);
});

it("who waits for another's value looks for it now and then while changes are not heard of", async () => {
  const deaf = { ...createLocalBackplane(), live: false };
  const { cache, namespace, store, versions, clock } = await startEmbedded({ backplane: deaf });
  const holder = await cache.reads.getOrLease(namespace, "k", false, wish());
  expect(holder.lease).toBeDefined();
  const waiting = cache.reads.getOrLease(namespace, "k", false, wish());
  await until(() => cache.leaseWaiters === 1, { what: "the reader to wait" });
  const now = clock.now();
  const value = { data: "another's", contentType: "" };
  const life = { createdAt: now, expiresAt: undefined, staleUntil: undefined };
  const draft = { version: versions.next(), deleted: false, value, tags: [], ...life };
  await store.write(namespace.name, [{ key: "k", draft, guard: { kind: "none" }, announce: "no" }]);
  expect(await waiting).toMatchObject({ outcome: "hit", record: { value } });
});
