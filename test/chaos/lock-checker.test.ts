import { describe, expect, it } from "vitest";
import { checkLocks, type LockFault } from "./lock-checker.ts";
import {
  grantsOf,
  type LockHistory,
  lastWillOf,
  type SeenGrant,
  type SeenRead,
  type SeenWrite,
} from "./lock-history.ts";

function grant(token: number, fromMs: number, untilMs: number, more: Partial<SeenGrant> = {}): SeenGrant {
  return { lock: "a", token, holder: `h${token}`, sentMs: fromMs - 1, fromMs, untilMs, ...more };
}

function write(token: number, ended: number, stored = true, more: Partial<SeenWrite> = {}): SeenWrite {
  const value = `${token} at ${ended}`;
  return {
    ...{ lock: "a", token, holder: `h${token}`, kind: "durable", key: "durable/a", value },
    ...{ began: ended - 1, ended, stored, ...more },
  };
}

function read(token: number, ended: number, value = `${token} at an unknown time`): SeenRead {
  return { lock: "a", token, key: "durable/a", value, began: ended - 1, ended };
}

function versioned(token: number, ended: number, version: number): SeenWrite {
  return write(token, ended, true, { began: 1, version });
}

const GOOD: LockHistory = {
  grants: [grant(1, 10, 20), grant(2, 30, 40), grant(7, 50, 60), grant(1, 15, 80, { lock: "b" })],
  writes: [write(1, 12), write(2, 35), write(1, 36, false), write(7, 55), write(2, 56, false)],
  reads: [read(1, 33), read(2, 54), read(7, 57)],
  left: [{ lock: "a", values: ["1 first", "2 at 35", "2 and not told", "7 at 55"] }],
  lossesMs: [],
  emptiedMs: [],
  dark: [{ fromMs: 41, toMs: 48, kinds: ["cached"] }],
};

describe("the checker of locks' histories", () => {
  it("finds nothing where nothing is wrong", () => {
    const { faults, examples } = checkLocks(GOOD);
    expect([new Set(Object.values(faults)), examples]).toEqual([new Set([0]), []]);
  });

  const kept = { kind: "message" } as const;
  const bad: readonly [LockFault, string, Partial<LockHistory>][] = [
    ["a token granted twice", "", { grants: [grant(1, 10, 20), grant(1, 30, 40, { holder: "other" })] }],
    ["a token went back", "", { grants: [grant(5, 10, 20), grant(4, 30, 40)] }],
    ["valid leases overlap", "", { grants: [grant(1, 10, 90), grant(2, 20, 30), grant(3, 50, 60)] }],
    ["granted in the dark", "", { grants: [grant(2, 43, 60)] }],
    ["written in the dark", "", { writes: [write(2, 43, true, { kind: "cached" })] }],
    ["an older token's write accepted", "to one key", { writes: [write(2, 35), write(1, 37)] }],
    ["an older token's write accepted", "elsewhere", { writes: [write(2, 35, true, { key: "b" }), write(1, 37)] }],
    ["an older token's value came later", "in messages", { left: [{ lock: "a", values: ["2 x", "1 x"] }] }],
    ["an older token's value came later", "after a write", { reads: [read(1, 37)] }],
    ["an older token's value came later", "after a read", { writes: [], reads: [read(2, 37), read(1, 39)] }],
    ["an older token's value came later", "by version", { writes: [versioned(2, 60, 4), versioned(1, 60, 5)] }],
    ["a refused write left something", "that was read", { reads: [read(7, 60, "1 at 36")] }],
    ["a refused write left something", "in messages", { left: [{ lock: "a", values: ["1 at 36"] }] }],
    ["an accepted write is gone", "", { writes: [write(2, 34, true, kept)] }],
    ["a valid holder's write refused", "", { writes: [write(7, 32), write(2, 35, false)] }],
  ];
  it.each(bad)("finds %s %s", (fault, _, history) => {
    expect(checkLocks({ ...GOOD, ...history }).faults[fault]).toBeGreaterThan(0);
  });

  it("does not know in which order writes came that were under way together", () => {
    const together = [write(2, 35), write(1, 37, true, { began: 30 })];
    expect(checkLocks({ ...GOOD, writes: together, reads: [] }).examples).toEqual([]);
  });

  it("forgives leases that overlap when what was granted before is lost, and no others", () => {
    const grants = [grant(1, 10, 50), grant(2, 30, 60)];
    expect(checkLocks({ ...GOOD, grants, lossesMs: [25] }).faults["valid leases overlap"]).toBe(0);
    expect(checkLocks({ ...GOOD, grants, lossesMs: [5] }).faults["valid leases overlap"]).toBe(1);
    expect(checkLocks({ ...GOOD, grants, lossesMs: [55] }).faults["valid leases overlap"]).toBe(1);
  });

  it("compares versions only of what was written before they began anew, or after", () => {
    const writes = [write(2, 35, true, { version: 9 }), write(7, 55, true, { version: 4 })];
    const faults = (emptiedMs: readonly number[]) =>
      checkLocks({ ...GOOD, writes, emptiedMs }).faults["an older token's value came later"];
    expect([faults([]), faults([40])]).toEqual([1, 0]);
  });

  it("lets only an authority that took over from another forget the tokens that are valid", () => {
    const writes = [write(2, 35, false, { reason: "FENCING_TOKEN_UNKNOWN" })];
    const faults = (isHandedOver: boolean) =>
      checkLocks({ ...GOOD, writes, isHandedOver }).faults["a valid holder's write refused"];
    expect([faults(false), faults(true)]).toEqual([1, 0]);
  });

  it("counts a lease until it is given back, and longer when it is renewed", () => {
    const said = { said: "granted", isKept: true, ...grant(1, 10, 20) } as const;
    const renewed = { said: "renewed", lock: "a", token: 1, untilMs: 35 } as const;
    const released = { said: "released", lock: "a", token: 1, atMs: 31 } as const;
    expect(grantsOf([said])[0]?.untilMs).toBe(20);
    expect(grantsOf([said, renewed])[0]?.untilMs).toBe(35);
    expect(grantsOf([said, renewed, released])[0]?.untilMs).toBe(31);
    expect(grantsOf([said, ...lastWillOf([said], 13)])[0]?.untilMs).toBe(13);
    const taken = { ...said, isKept: false };
    expect(grantsOf([taken, ...lastWillOf([taken], 13)])[0]?.untilMs).toBe(20);
  });
});
