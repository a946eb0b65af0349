import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createBackoff } from "../../src/infra/backoff.ts";
import { createWatchdog } from "../../src/infra/redis-watchdog.ts";

describe("a watchdog", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  function watch() {
    const seen = { stuck: 0 };
    const watchdog = createWatchdog(800, () => {
      seen.stuck += 1;
    });
    return { watchdog, seen };
  }

  it.each([0, 1, 50, 99, 100, 101, 350, 799])(
    "notices a command without an answer after 7/8 of the timeout and before all of it, sent %i ms after another",
    (later) => {
      const { watchdog, seen } = watch();
      watchdog.sent();
      vi.advanceTimersByTime(later);
      watchdog.settled();
      watchdog.sent();
      vi.advanceTimersByTime(699);
      expect(seen.stuck).toBe(0);
      vi.advanceTimersByTime(101);
      expect(seen.stuck).toBe(1);
    },
  );

  it("is not misled by answers to other commands: the oldest one counts", () => {
    const { watchdog, seen } = watch();
    // Ten in flight at any time, each answered after 1000 ms: there is progress, but all of them are too slow.
    for (let step = 0; step < 10; step++) {
      watchdog.sent();
      vi.advanceTimersByTime(100);
    }
    expect(seen.stuck).toBe(1);
  });

  it("leaves a connection alone that answers in time, however busy", () => {
    const { watchdog, seen } = watch();
    for (let step = 0; step < 200; step++) {
      for (let sent = 0; sent < 100; sent++) watchdog.sent();
      vi.advanceTimersByTime(600);
      for (let settled = 0; settled < 100; settled++) watchdog.settled();
    }
    expect(seen.stuck).toBe(0);
    expect(watchdog.pending).toBe(0);
  });

  it("rests while nothing is under way", () => {
    const { watchdog } = watch();
    watchdog.sent();
    watchdog.settled();
    vi.advanceTimersByTime(100);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("a backoff", () => {
  it("doubles up to its cap, keeps at least half of it, and begins anew", () => {
    const longest = createBackoff({ firstMs: 50, capMs: 300, random: () => 1 });
    expect([longest.next(), longest.next(), longest.next(), longest.next()]).toEqual([50, 100, 200, 300]);
    longest.reset();
    expect(longest.next()).toBe(50);
    const shortest = createBackoff({ firstMs: 50, capMs: 300, random: () => 0 });
    expect([shortest.next(), shortest.next()]).toEqual([25, 50]);
  });
});
