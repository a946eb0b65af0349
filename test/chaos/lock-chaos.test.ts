import { expect, it } from "vitest";
import { type ChaosAuthority, runLockChaos } from "./lock-run.ts";

/*
 * Promises: whatever is killed, frozen, cut off or forgotten, and however far clocks are apart, a lock's tokens are unique and only grow; a write that is protected by
 * them is not accepted after a newer one; and no two valid leases overlap, unless the authority lost what it knew, as only
 * Redis may.
 */

const authorities: readonly ChaosAuthority[] = ["sqlite", "postgres", "redis", "redlock"];

it.each(authorities)("locks that %s decides about stay what they promise", { timeout: 240_000 }, async (authority) => {
  const { verdict, history, kept, failed, problems } = await runLockChaos({ authority, seed: 7 });
  const { grants, writes } = history;
  const refused = writes.filter(({ accepted }) => !accepted).length;
  console.log(authority, { grants: grants.length, kept, writes: writes.length, refused }, failed);
  expect(verdict.examples).toEqual([]);
  expect(problems).toEqual([]);
  expect(grants.length).toBeGreaterThan(60);
  expect(kept).toBeGreaterThan(10);
  // Otherwise nothing that was late ever came.
  expect(refused).toBeGreaterThan(0);
  for (const why of Object.keys(failed)) expect(why).toMatch(/^(UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED) /);
});
