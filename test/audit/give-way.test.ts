import { describe, expect, it } from "vitest";
import { createGiveWay } from "../../src/audit/queue/give-way.ts";

const NEVER = new AbortController().signal;
/** Far beyond what a test waits for. */
const LONG_MS = 100_000;

function setup() {
  const traffic = { appended: 0, awaited: false };
  const giveWay = createGiveWay({ traffic }, 1_000);
  /** Whether it rests, that is, for longer than a few turns of the event loop. */
  async function rests(workMs: number, left: number, signal = NEVER): Promise<boolean> {
    let over = false;
    void giveWay(workMs, left, signal).then(() => {
      over = true;
    });
    for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
    return !over;
  }
  return { traffic, giveWay, rests };
}

describe("giving way", () => {
  it("is for what comes in, while it comes in", async () => {
    const { traffic, rests } = setup();
    expect(await rests(LONG_MS, 0)).toBe(false);
    traffic.appended = 5;
    expect(await rests(LONG_MS, 0)).toBe(true);
    expect(await rests(LONG_MS, 0)).toBe(false);
    traffic.appended = 6;
    expect(await rests(LONG_MS, 1_000)).toBe(true);
  });

  it("ends when too many wait already", async () => {
    const { traffic, rests } = setup();
    traffic.appended = 5;
    expect(await rests(LONG_MS, 1_001)).toBe(false);
  });

  it("ends when somebody waits, or nobody wants it any more, however long the work took", async () => {
    const { traffic, giveWay } = setup();
    traffic.appended = 1;
    const one = giveWay(LONG_MS, 0, NEVER);
    traffic.awaited = true;
    await one;
    traffic.awaited = false;
    traffic.appended = 2;
    const ended = new AbortController();
    const other = giveWay(LONG_MS, 0, ended.signal);
    ended.abort();
    await other;
  });
});
