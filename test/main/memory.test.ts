import { setImmediate as nextTurn } from "node:timers/promises";
import { getHeapSpaceStatistics } from "node:v8";
import { expect, it } from "vitest";
import { limitYoungGeneration, returnMemoryWhenIdle } from "../../src/main/memory.ts";

const MIB = 1024 * 1024;

/** A process whose calls and heap the test moves, a second at a time. */
function fakeProcess(keptBytes = 32 * MIB) {
  const state = { calls: 0, taken: 30 * MIB, returned: 0 };
  let tick: (() => void) | undefined;
  const cancel = returnMemoryWhenIdle(keptBytes, {
    calls: () => state.calls,
    takenBytes: () => state.taken,
    returnMemory: () => {
      state.returned++;
      state.taken = 40 * MIB;
    },
    again(work) {
      tick = work;
      return () => {
        tick = undefined;
      };
    },
  });
  return {
    state,
    cancel,
    seconds(count: number) {
      for (let i = 0; i < count; i++) tick?.();
    },
  };
}

it("gives memory back once the calls that took it have ended", () => {
  const { state, seconds } = fakeProcess();
  Object.assign(state, { calls: 5, taken: 200 * MIB });
  seconds(1);
  expect(state.returned).toBe(0);
  seconds(2);
  expect(state.returned).toBe(1);
});

it("never does so while calls come in, however few", () => {
  const { state, seconds } = fakeProcess();
  state.taken = 200 * MIB;
  for (let second = 0; second < 100; second++) {
    state.calls++;
    seconds(1);
  }
  expect(state.returned).toBe(0);
});

it("leaves a process alone that has not grown", () => {
  const { state, seconds } = fakeProcess();
  state.taken += 4 * MIB;
  seconds(100);
  expect(state.returned).toBe(0);
});

it("does not meet every pause between bursts that follow each other", () => {
  const { state, seconds } = fakeProcess();
  for (let burst = 0; burst < 10; burst++) {
    Object.assign(state, { calls: state.calls + 1_000, taken: 200 * MIB });
    seconds(5);
  }
  expect(state.returned).toBe(2);
});

it("looks at growth since the last time, so that what stays is not collected again and again", () => {
  const { state, seconds } = fakeProcess();
  Object.assign(state, { calls: 1, taken: 200 * MIB });
  seconds(500);
  expect(state.returned).toBe(1);
});

it("leaves a process that is to keep a lot to the engine, which need not stop it for long", () => {
  const { state, seconds } = fakeProcess(1024 * MIB);
  Object.assign(state, { calls: 1, taken: 2048 * MIB });
  seconds(100);
  expect(state.returned).toBe(0);
});

it("stops when it is cancelled", () => {
  const { state, seconds, cancel } = fakeProcess();
  cancel();
  Object.assign(state, { calls: 1, taken: 200 * MIB });
  seconds(100);
  expect(state.returned).toBe(0);
});

it("keeps the young generation small however much is on its way", async () => {
  const youngBytes = () =>
    getHeapSpaceStatistics().find(({ space_name: name }) => name === "new_space")?.space_size ?? 0;
  const undo = limitYoungGeneration(4 * MIB);
  try {
    const onItsWay: object[][] = [];
    for (let i = 0; i < 300; i++) {
      onItsWay.push(Array.from({ length: 10_000 }, (_, at) => ({ at, text: `${i}/${at}` })));
      if (onItsWay.length > 20) onItsWay.shift();
      await nextTurn();
    }
    // One that grows is noticed a turn later.
    expect(youngBytes()).toBeLessThanOrEqual(8 * MIB);
  } finally {
    undo();
  }
});
