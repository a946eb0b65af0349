import { describe, expect, it } from "vitest";
import { checkLocks, type LockFault } from "./lock-checker.ts";
import { grantsOf, type LockHistory, lastWillOf, type SeenGrant, type SeenWrite } from "./lock-history.ts";

function grant(token: number, fromMs: number, untilMs: number, more: Partial<SeenGrant> = {}): SeenGrant {
  return { lock: "a", token, holder: `h${token}`, sentMs: fromMs - 1, fromMs, untilMs, ...more };
}

function write(token: number, atMs: number, accepted = true): SeenWrite {
  return { lock: "a", token, holder: `h${token}`, sentMs: atMs - 1, atMs, accepted };
}

const GOOD: LockHistory = {
  grants: [grant(1, 10, 20), grant(2, 30, 40), grant(7, 50, 60), grant(1, 15, 80, { lock: "b" })],
  writes: [write(1, 12), write(2, 35), write(1, 36, false), write(7, 55), write(2, 56, false)],
  lossesMs: [],
};

describe("the checker of locks' histories", () => {
  it("finds nothing where nothing is wrong", () => {
    const { faults, examples } = checkLocks(GOOD);
    expect([Object.values(faults), examples]).toEqual([[0, 0, 0, 0, 0], []]);
  });

  const bad: readonly [LockFault, Partial<LockHistory>][] = [
    ["a token granted twice", { grants: [grant(1, 10, 20), grant(1, 30, 40, { holder: "other" })] }],
    ["a token went back", { grants: [grant(5, 10, 20), grant(4, 30, 40)] }],
    ["valid leases overlap", { grants: [grant(1, 10, 90), grant(2, 20, 30), grant(3, 50, 60)] }],
    ["an older token's write accepted", { writes: [write(2, 35), write(1, 36)] }],
    ["a valid holder's write refused", { writes: [write(7, 32), write(2, 35, false)] }],
  ];
  it.each(bad)("finds %s", (fault, history) => {
    expect(checkLocks({ ...GOOD, ...history }).faults[fault]).toBeGreaterThan(0);
  });

  it("forgives leases that overlap when what was granted before is lost, and no others", () => {
    const grants = [grant(1, 10, 50), grant(2, 30, 60)];
    expect(checkLocks({ ...GOOD, grants, lossesMs: [25] }).faults["valid leases overlap"]).toBe(0);
    expect(checkLocks({ ...GOOD, grants, lossesMs: [5] }).faults["valid leases overlap"]).toBe(1);
    expect(checkLocks({ ...GOOD, grants, lossesMs: [55] }).faults["valid leases overlap"]).toBe(1);
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
