import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createRoom } from "../../src/audit/intake/room.ts";

const never = new AbortController().signal;
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Somebody who wants so much; `giveBack` once it was got. */
function visitor(room: ReturnType<typeof createRoom>, size: number, order: string[] = [], name = String(size)) {
  const abort = new AbortController();
  const one: { giveBack: (() => void) | undefined; error: unknown; abort: (reason: unknown) => void } = {
    giveBack: undefined,
    error: undefined,
    abort: (reason) => abort.abort(reason),
  };
  room.take(size, abort.signal).then(
    (giveBack) => {
      order.push(name);
      one.giveBack = giveBack;
    },
    (error: unknown) => {
      one.error = error;
    },
  );
  return one;
}

describe("the room for what is on its way", () => {
  it("is given to whoever fits, and taken back once", async () => {
    const room = createRoom(10);
    const giveBack = await room.take(4, never);
    expect(room.free).toBe(6);
    await room.take(6, never);
    expect(room.free).toBe(0);
    giveBack();
    giveBack();
    expect(room.free).toBe(4);
  });

  it("lets those who wait in by their order, nobody past the one in front", async () => {
    const room = createRoom(10);
    const order: string[] = [];
    const giveBack = await room.take(8, never);
    const waiting = ["5", "1", "4", "2"].map((size) => visitor(room, Number(size), order));
    await settle();
    // The second would fit, and so would newcomers.
    expect([order, room.free]).toEqual([[], 2]);
    giveBack();
    await settle();
    expect([order, room.free]).toEqual([["5", "1", "4"], 0]);
    waiting[1]?.giveBack?.();
    await settle();
    expect(order).toHaveLength(3);
    waiting[2]?.giveBack?.();
    await settle();
    expect([order, room.free]).toEqual([["5", "1", "4", "2"], 3]);
  });

  it("is had by one that is larger than all there is, when it has it for itself", async () => {
    const room = createRoom(10);
    const order: string[] = [];
    const giveBack = await room.take(1, never);
    const large = visitor(room, 25, order);
    const small = visitor(room, 1, order);
    await settle();
    expect(order).toEqual([]);
    giveBack();
    await settle();
    expect([order, room.free]).toEqual([["25"], 0]);
    large.giveBack?.();
    await settle();
    expect([order, room.free]).toEqual([["25", "1"], 9]);
    small.giveBack?.();
    expect(room.free).toBe(10);
  });

  it("is not waited for by who gives up, for the reason that was given", async () => {
    const room = createRoom(10);
    const giveBack = await room.take(10, never);
    const one = visitor(room, 3);
    const reason = new Error("gone");
    one.abort(reason);
    await settle();
    expect(one.error).toBe(reason);
    await expect(room.take(3, AbortSignal.abort(reason))).rejects.toBe(reason);
    giveBack();
    expect(room.free).toBe(10);
  });

  it("goes to those behind who fit, when the one in front gives up", async () => {
    const room = createRoom(10);
    const order: string[] = [];
    await room.take(6, never);
    const large = visitor(room, 8, order);
    visitor(room, 2, order, "a");
    visitor(room, 2, order, "b");
    visitor(room, 2, order, "c");
    await settle();
    expect(order).toEqual([]);
    large.abort(new Error("gone"));
    await settle();
    expect([order, room.free]).toEqual([["a", "b"], 0]);
  });

  it("keeps what was got when the signal is aborted afterwards", async () => {
    const room = createRoom(10);
    const first = await room.take(10, never);
    const waited = visitor(room, 4);
    first();
    await settle();
    waited.abort(new Error("late"));
    expect(room.free).toBe(6);
    waited.giveBack?.();
    expect([room.free, waited.error]).toEqual([10, undefined]);
  });

  it("is never overdrawn, never lost and never withheld, whatever comes and goes", async () => {
    const step = fc.oneof(
      fc.record({ act: fc.constant("take" as const), size: fc.integer({ min: 0, max: 14 }) }),
      fc.record({ act: fc.constantFrom("give" as const, "abort" as const), size: fc.nat(30) }),
    );
    const check = async (steps: readonly { act: "take" | "give" | "abort"; size: number }[]) => {
      const room = createRoom(10);
      const all: { readonly size: number; readonly one: ReturnType<typeof visitor>; over: boolean }[] = [];
      const waiting = () => all.filter(({ one, over }) => !over && one.giveBack === undefined);
      const inside = () => all.filter(({ one, over }) => !over && one.giveBack !== undefined);
      for (const { act, size } of steps) {
        if (act === "take") all.push({ size, one: visitor(room, size), over: false });
        const among = act === "give" ? inside() : waiting();
        const chosen = act === "take" ? undefined : among[size % Math.max(1, among.length)];
        if (chosen !== undefined) {
          chosen.over = true;
          if (act === "give") chosen.one.giveBack?.();
          else chosen.one.abort(new Error("gone"));
        }
        await settle();
        const held = inside().reduce((sum, one) => sum + one.size, 0);
        const big = inside().filter((one) => one.size > 10);
        expect(held <= 10 || (big.length === 1 && held === big[0]?.size)).toBe(true);
        expect(room.free).toBe(Math.max(0, 10 - held));
        const [front] = waiting();
        if (front !== undefined) expect(front.size > 10 - held && held > 0).toBe(true);
      }
      for (const { one, over } of all) if (!over && one.giveBack === undefined) one.abort(new Error("gone"));
      await settle();
      for (const { one, over } of all) if (!over) one.giveBack?.();
      expect(room.free).toBe(10);
    };
    await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40, size: "max" }), check), {
      numRuns: 300,
    });
  });
});
