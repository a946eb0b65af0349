import { expect, it } from "vitest";
import { atScale } from "../support/scale.ts";
import { type ChaosAuthority, runLockChaos } from "./lock-run.ts";

/*
 * Promises: whatever is killed, frozen, cut off or forgotten, and however far clocks are apart, a lock's tokens are unique and only
 * grow; nothing is written to conversations or to the cache under an older one after a newer one, and what is refused leaves nothing
 * behind; and no two valid leases overlap, unless the authority lost what it knew, as only Redis may.
 */

const TIME = { timeout: 240_000 };
const authorities: readonly ChaosAuthority[] = ["sqlite", "postgres", "redis", "redlock"];

const SEEDS = Array.from({ length: atScale(6, 1) }, (_, i) => i + 7);
const runs = SEEDS.flatMap((seed) => authorities.map((authority) => ({ authority, seed })));

it.each(runs)("locks that $authority decides about stay what they promise ($seed)", TIME, async (run) => {
  const { verdict, counts, problems } = await runLockChaos(run);
  console.log(run.authority, counts);
  expect(verdict.examples).toEqual([]);
  expect(problems).toEqual([]);
  expect(counts.grants).toBeGreaterThan(60);
  expect(counts.kept).toBeGreaterThan(10);
  for (const [kind, written] of Object.entries(counts.written)) expect(written, kind).toBeGreaterThan(50);
  // Otherwise nothing that was late ever came.
  expect(counts.refused.FENCING_TOKEN_STALE).toBeGreaterThan(0);
  for (const why of Object.keys(counts.failed)) expect(why).toMatch(/^(UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED) /);
});
