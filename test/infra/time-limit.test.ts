import { describe, expect, it } from "vitest";
import { createTimeLimit } from "../../src/infra/time-limit.ts";

describe("a time limit", () => {
  it("tells each that is overdue, in the order they began, also those begun later", async () => {
    const limit = createTimeLimit(20);
    const told: number[] = [];
    const all = (from: number) =>
      Promise.all(
        Array.from({ length: 50 }, (_, i) => {
          const { promise, resolve } = Promise.withResolvers<void>();
          limit.begin(() => {
            told.push(from + i);
            resolve();
          });
          return promise;
        }),
      );
    await all(0);
    await all(50);
    expect(told).toEqual(Array.from({ length: 100 }, (_, i) => i));
  });

  it("says nothing to what has ended, and does not let it hide what has not", async () => {
    const limit = createTimeLimit(30);
    let wronglyTold = 0;
    const stuck = new Promise<void>((resolve) => {
      limit.begin(resolve);
    });
    for (let i = 0; i < 5_000; i++) {
      const ended = limit.begin(() => wronglyTold++);
      ended.onOverdue = undefined;
    }
    const last = new Promise<void>((resolve) => {
      limit.begin(resolve);
    });
    await stuck;
    await last;
    expect(wronglyTold).toBe(0);
  });

  it("tells only once", async () => {
    const limit = createTimeLimit(5);
    let told = 0;
    await new Promise<void>((resolve) => {
      limit.begin(() => {
        told++;
        resolve();
      });
    });
    await new Promise<void>((resolve) => {
      limit.begin(resolve);
    });
    expect(told).toBe(1);
  });
});
