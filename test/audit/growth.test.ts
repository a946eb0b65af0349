import { describe, expect, it } from "vitest";
import { createGrowth } from "../../src/audit/archive/growth.ts";
import type { Backplane } from "../../src/infra/backplane.ts";
import { createLocalBackplane, createLocalHub } from "../../src/infra/backplane-local.ts";

const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

/** A way to the others that a test holds up, breaks and interrupts. */
class HeldBackplane {
  readonly sent: string[] = [];
  readonly #waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];
  #onGap: (live: boolean) => void = () => {};
  #onMessage: (message: string) => void = () => {};

  readonly backplane: Backplane = {
    ...createLocalBackplane(),
    publish: (_, message) => {
      this.sent.push(message);
      return new Promise((resolve, reject) => void this.#waiting.push({ resolve, reject }));
    },
    subscribe: (_, onMessage) => {
      this.#onMessage = onMessage;
      return () => {
        this.#onMessage = () => {};
      };
    },
    onGap: (listener) => {
      this.#onGap = listener;
      return () => {
        this.#onGap = () => {};
      };
    },
  };

  async pass(error?: Error): Promise<void> {
    const next = this.#waiting.shift();
    if (error === undefined) next?.resolve();
    else next?.reject(error);
    await settle();
  }

  hear(message: string): void {
    this.#onMessage(message);
  }

  gap(live: boolean): void {
    this.#onGap(live);
  }
}

function watched(backplane: Backplane) {
  const growth = createGrowth(backplane);
  const heard: number[] = [];
  const forget = growth.onGrown((size) => heard.push(size));
  return { growth, heard, forget };
}

describe("the archive's growth", () => {
  it("is heard of here and on every other instance", async () => {
    const hub = createLocalHub();
    const [one, other, third] = [0, 1, 2].map(() => watched(createLocalBackplane({ hub })));
    expect(one?.growth.size).toBe(0);
    one?.growth.announce(5);
    expect(one?.heard).toEqual([5]);
    await settle();
    other?.growth.announce(9);
    await settle();
    for (const each of [one, other, third]) expect([each?.heard, each?.growth.size]).toEqual([[5, 9], 9]);
  });

  it("never goes back: who hears late of less is told the most that is known", () => {
    const held = new HeldBackplane();
    const { growth, heard } = watched(held.backplane);
    held.hear("7");
    growth.announce(4);
    held.hear("6");
    expect([heard, growth.size]).toEqual([[7, 7, 7], 7]);
  });

  it("is told to the others one at a time: while one is on its way, only the largest of the rest follows", async () => {
    const held = new HeldBackplane();
    const { growth, heard } = watched(held.backplane);
    for (const size of [1, 2, 4, 3]) growth.announce(size);
    expect([held.sent, heard]).toEqual([["1"], [1, 2, 4, 4]]);
    await held.pass();
    expect(held.sent).toEqual(["1", "4"]);
    await held.pass();
    growth.announce(5);
    expect(held.sent).toEqual(["1", "4", "5"]);
  });

  it("is told on, though one telling failed", async () => {
    const held = new HeldBackplane();
    const { growth } = watched(held.backplane);
    growth.announce(1);
    growth.announce(2);
    await held.pass(new Error("away"));
    await held.pass(new Error("away"));
    growth.announce(3);
    expect(held.sent).toEqual(["1", "2", "3"]);
  });

  it("may have been missed in a gap: all are woken when it ends, with the size that is known", () => {
    const held = new HeldBackplane();
    const { heard } = watched(held.backplane);
    held.hear("3");
    held.gap(false);
    expect(heard).toEqual([3]);
    held.gap(true);
    expect(heard).toEqual([3, 3]);
  });

  it.each(["", "many", "1.5", "9007199254740993", "-"])("is not what cannot be a size: %j", (message) => {
    const held = new HeldBackplane();
    const { growth, heard } = watched(held.backplane);
    held.hear("2");
    held.hear(message);
    expect([growth.size, heard.every((size) => size === 2)]).toEqual([2, true]);
  });

  it("is told to nobody who has left, and to nobody once it is closed", () => {
    const held = new HeldBackplane();
    const { growth, heard, forget } = watched(held.backplane);
    const others: number[] = [];
    // One that leaves while it is told keeps nobody else from hearing.
    const leave = growth.onGrown(() => leave());
    growth.onGrown((size) => others.push(size));
    growth.announce(1);
    forget();
    growth.announce(2);
    expect([heard, others]).toEqual([[1], [1, 2]]);
    growth.close();
    held.hear("3");
    held.gap(true);
    expect(others).toEqual([1, 2]);
  });
});
