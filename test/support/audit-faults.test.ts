import { describe, expect, it } from "vitest";
import { lanes, type PlannedFault, planFaults } from "./audit-faults.ts";

const times = { calmMs: [100, 200], holdMs: [300, 400] } as const;

function first(count: number, seed: number): PlannedFault[] {
  return planFaults(lanes.redis, times, seed).take(count).toArray();
}

describe("planned faults", () => {
  it("are the same for the same seed, and others for another", () => {
    expect(first(40, 7)).toEqual(first(40, 7));
    expect(first(40, 7)).not.toEqual(first(40, 8));
  });

  it("come once each before one comes again, in changing orders", () => {
    const rounds = Array.from({ length: 10 }, (_, round) => first(40, 7).slice(4 * round, 4 * round + 4));
    for (const round of rounds) expect(new Set(round.map(({ kind }) => kind))).toEqual(new Set(lanes.redis));
    expect(new Set(rounds.map((round) => round.map(({ kind }) => kind).join())).size).toBeGreaterThan(1);
  });

  it("keep to their times", () => {
    for (const { afterMs, holdMs } of first(200, 7)) {
      expect(afterMs).toBeGreaterThanOrEqual(100);
      expect(afterMs).toBeLessThanOrEqual(200);
      expect(holdMs).toBeGreaterThanOrEqual(300);
      expect(holdMs).toBeLessThanOrEqual(400);
    }
  });
});
