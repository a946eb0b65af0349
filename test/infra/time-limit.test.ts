import { describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createTimeLimit } from "../../src/infra/time-limit.ts";

const limited = (ms: number) => createTimeLimit(ms, () => new UnavailableError("TOO_LATE", "too late"));

describe("a time limit", () => {
  it("gives what the work gives, or its error", async () => {
    const within = limited(60_000);
    await expect(within(Promise.resolve(7))).resolves.toBe(7);
    await expect(within(Promise.reject(new Error("no")))).rejects.toThrow("no");
  });

  it("gives up on each of many that never end, also those begun later", async () => {
    const within = limited(20);
    const first = within(new Promise(() => {}));
    await expect(first).rejects.toThrow("too late");
    const more = await Promise.allSettled(Array.from({ length: 50 }, () => within(new Promise(() => {}))));
    expect(more.every(({ status }) => status === "rejected")).toBe(true);
  });

  it("does not let those that end hide one that does not", async () => {
    const within = limited(50);
    const stuck = within(new Promise(() => {}));
    const fine: Promise<number>[] = [];
    for (let i = 0; i < 5_000; i++) fine.push(within(Promise.resolve(i)));
    expect((await Promise.all(fine)).length).toBe(5_000);
    await expect(stuck).rejects.toThrow("too late");
  });

  it("ignores what comes too late", async () => {
    const late = Promise.withResolvers<string>();
    const within = limited(10);
    await expect(within(late.promise)).rejects.toThrow("too late");
    late.resolve("late");
    await expect(within(Promise.resolve("next"))).resolves.toBe("next");
  });
});
