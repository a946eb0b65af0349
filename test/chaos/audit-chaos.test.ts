import { expect, it } from "vitest";
import { lanes } from "../support/audit-faults.ts";
import { accountInWords } from "./audit-account.ts";
import { runAuditChaos } from "./audit-run.ts";

/*
 * Promises: whatever happens to Redis, to Postgres and to the instances themselves, every acknowledged record is in the archive
 * exactly once and as it was sent, in a tree whose proofs hold. `npm run chaos:audit -- --minutes 10` does the same for longer.
 */

const durationMs = 1_000 * Number(process.env.CHAOS_SECONDS ?? 60);
const seed = Number(process.env.CHAOS_SEED ?? 20_260_712);
/** A slow machine does less in a minute; one that does nothing proves nothing. */
const leastAcked = durationMs / 20;

it(`loses and doubles no acknowledged record in ${durationMs / 1000} s of faults at random (seed ${seed})`, {
  timeout: durationMs + 400_000,
}, async () => {
  const report = await runAuditChaos({ seed, durationMs });
  console.log(`seed ${seed}:\n${accountInWords(report)}`);
  expect({ ...report.account, problems: report.proofs.problems, unsettled: report.unsettled }).toMatchObject({
    faults: {},
    examples: [],
    problems: [],
    unsettled: undefined,
  });
  // It was a run worth the name.
  for (const kind of Object.values(lanes).flat()) expect(report.faults[kind], kind).toBeGreaterThanOrEqual(1);
  expect(report.account.acked).toBeGreaterThan(leastAcked);
  expect(report.account.requests.acked).toBeGreaterThan(leastAcked / 100);
  expect(report.proofs.checkpoints).toBeGreaterThan(5);
  expect(report.proofs.inclusions).toBeGreaterThan(10);
  expect(report.proofs.consistencies).toBeGreaterThan(5);
  expect(report.proofs.checkedByServer).toBe(2 * report.account.leaves);
  const streams = report.producers.map((producer) => producer.streams);
  expect(Math.min(...streams), "every producer had to reconnect").toBeGreaterThan(1);
});
