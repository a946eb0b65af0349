import { describe, expect, it } from "vitest";
import { createBudget } from "../../src/cli/import/budget.ts";

describe("a budget", () => {
  it("lets in what fits, in the order it came, and what is larger than all of it alone", async () => {
    const budget = createBudget(10);
    const started: number[] = [];
    const releases: (() => void)[] = [];
    const order = [6, 4, 1, 50, 2];
    const all = order.map(async (bytes, at) => {
      const release = await budget.take(bytes);
      started.push(at);
      releases[at] = release;
    });
    const settle = () => new Promise((resolve) => setImmediate(resolve));
    await settle();
    expect(started).toEqual([0, 1]);
    releases[0]?.();
    await settle();
    expect(started).toEqual([0, 1, 2]);
    releases[1]?.();
    await settle();
    expect(started).toEqual([0, 1, 2]);
    releases[2]?.();
    await settle();
    expect(started).toEqual([0, 1, 2, 3]);
    releases[3]?.();
    await Promise.all(all);
    expect(started).toEqual([0, 1, 2, 3, 4]);
  });
});
