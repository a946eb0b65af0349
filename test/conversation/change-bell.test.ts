import { describe, expect, it } from "vitest";
import { createChangeBell } from "../../src/conversation/watch/change-bell.ts";
import type { Backplane } from "../../src/infra/backplane.ts";
import { createLocalBackplane, createLocalHub } from "../../src/infra/backplane-local.ts";

const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

function heard(backplane: Backplane) {
  const bell = createChangeBell(backplane);
  const rings = { count: 0 };
  const forget = bell.onRing(() => rings.count++);
  return { bell, rings, forget };
}

/** A way to the others on which a test holds up what is sent, breaks it, and makes gaps. */
function heldBackplane() {
  const waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];
  const gaps = new Set<(live: boolean) => void>();
  const backplane: Backplane = {
    ...createLocalBackplane(),
    publish: () => new Promise((resolve, reject) => void waiting.push({ resolve, reject })),
    onGap(listener) {
      gaps.add(listener);
      return () => gaps.delete(listener);
    },
  };
  return { backplane, waiting, gap: (live: boolean) => gaps.forEach((listener) => void listener(live)) };
}

describe("the bell of changes", () => {
  it("is heard here and on every other instance, until it is closed", async () => {
    const hub = createLocalHub();
    const [one, other] = [heard(createLocalBackplane({ hub })), heard(createLocalBackplane({ hub }))];
    one.bell.ring();
    await settle();
    other.bell.ring();
    await settle();
    expect([one.rings.count, other.rings.count]).toEqual([2, 2]);
    other.forget();
    one.bell.ring();
    await settle();
    expect([one.rings.count, other.rings.count]).toEqual([3, 2]);
    one.bell.close();
    other.bell.ring();
    await settle();
    expect(one.rings.count).toBe(3);
  });

  it("is told to the others one at a time: however often it rings meanwhile, one more follows", async () => {
    const { backplane, waiting } = heldBackplane();
    const { bell, rings } = heard(backplane);
    for (let more = 0; more < 5; more++) bell.ring();
    expect([waiting.length, rings.count]).toEqual([1, 5]);
    waiting[0]?.reject(new Error("away"));
    await settle();
    expect(waiting.length).toBe(2);
    waiting[1]?.resolve();
    await settle();
    expect(waiting.length).toBe(2);
    bell.ring();
    expect(waiting.length).toBe(3);
  });

  it("is heard when it may have been missed: at the end of a gap", () => {
    const { backplane, gap } = heldBackplane();
    const { rings } = heard(backplane);
    gap(false);
    expect(rings.count).toBe(0);
    gap(true);
    expect(rings.count).toBe(1);
  });
});
