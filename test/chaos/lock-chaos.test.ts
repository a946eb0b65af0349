import { expect, it } from "vitest";
import { type ChaosAuthority, runLockChaos } from "./lock-run.ts";

/*
 * Promises: whatever is killed, frozen, cut off or forgotten, and however far clocks are apart, a lock's tokens are unique and only
 * grow; nothing is written to conversations or to the cache under an older one after a newer one, and what is refused leaves nothing
 * behind; and no two valid leases overlap, unless the authority lost what it knew, as only Redis may.
 */

const authorities: readonly ChaosAuthority[] = ["sqlite", "postgres", "redis", "redlock"];

it.each(authorities)("locks that %s decides about stay what they promise", { timeout: 240_000 }, async (authority) => {
  const { verdict, counts, problems } = await runLockChaos({ authority, seed: 7 });
  console.log(authority, counts);
  expect(verdict.examples).toEqual([]);
  expect(problems).toEqual([]);
  expect(counts.grants).toBeGreaterThan(60);
  expect(counts.kept).toBeGreaterThan(10);
  for (const [kind, written] of Object.entries(counts.written)) expect(written, kind).toBeGreaterThan(50);
  // Otherwise nothing that was late ever came.
  expect(counts.refused.FENCING_TOKEN_STALE).toBeGreaterThan(0);
  for (const why of Object.keys(counts.failed)) expect(why).toMatch(/^(UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED) /);
});
