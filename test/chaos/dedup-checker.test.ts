import { describe, expect, it } from "vitest";
import {
  type Complete,
  type Duplicate,
  type Event,
  type Fault,
  type First,
  faultsIn,
  type Release,
} from "./dedup-checker.ts";

const LEASE_MS = 1_000;
const at = (begin: number, end = begin + 10) => ({ id: "a", begin, end });
const first = (token: number, begin: number, caller = `caller-${token}`): First => {
  return { kind: "first", token, caller, since: begin, ...at(begin) };
};
const duplicate = (token: number, begin: number, degraded = false): Duplicate => {
  return { kind: "duplicate", token, degraded, ...at(begin) };
};
const complete = (token: number, begin: number, outcome: Complete["outcome"] = "completed"): Complete => {
  return { kind: "complete", token, outcome, ...at(begin) };
};
const release = (token: number, begin: number, forget: boolean, outcome: Release["outcome"] = "released"): Release => {
  return { kind: "release", token, forget, outcome, ...at(begin) };
};

const GOOD: readonly [string, readonly Event[]][] = [
  ["a thing that is done, and told to others", [first(1, 0), complete(1, 100), duplicate(1, 200)]],
  ["a takeover after the lease", [first(1, 0), first(2, 1_000), complete(1, 1_100, "refused"), complete(2, 1_200)]],
  ["a retry that is told the same", [first(1, 0), { ...first(1, 50), since: 0 }, complete(1, 100)]],
  ["a claim that is released", [first(1, 0), release(1, 50, false), first(2, 100)]],
  ["a thing that is forgotten and done again", [first(1, 0), complete(1, 50), release(1, 100, true), first(2, 150)]],
  ["a completion of which nobody heard", [first(1, 0), complete(1, 50, "unknown"), duplicate(1, 100)]],
  ["what is told while it is forgotten", [first(1, 0), complete(1, 50), release(1, 100, true), duplicate(1, 105)]],
  ["a degraded answer", [first(1, 0), complete(1, 50), release(1, 100, true), duplicate(1, 200, true)]],
];

const BAD: readonly [Fault, readonly Event[]][] = [
  ["two are the first", [first(1, 0, "one"), first(1, 5, "two")]],
  ["token went back", [first(2, 0), release(2, 50, false), first(1, 100)]],
  ["taken over early", [first(1, 0), first(2, 500)]],
  ["done twice", [first(1, 0), complete(1, 100), first(2, 1_500)]],
  ["completed after a takeover", [first(1, 0), first(2, 1_000), complete(1, 1_100)]],
  ["duplicate of nothing", [first(1, 0), duplicate(1, 100)]],
  [
    "duplicate of what is forgotten",
    [first(1, 0), complete(1, 50), release(1, 100, true), duplicate(1, 200), first(2, 300)],
  ],
];

describe("the checker of claims", () => {
  it.each(GOOD)("finds nothing in %s", (_, history) => {
    expect(faultsIn(history, LEASE_MS)).toEqual([]);
  });

  it.each(BAD)("finds: %s", (fault, history) => {
    expect(faultsIn(history, LEASE_MS).map((found) => found.fault)).toContain(fault);
  });
});
