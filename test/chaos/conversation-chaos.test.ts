import { expect, it } from "vitest";
import { accountInWords } from "./conversation-account.ts";
import { runConversationChaos } from "./conversation-run.ts";

/*
 * Promises: whatever happens to Redis and to the instances, two of them written to at once lose, double and reorder nothing; what
 * is read is one version, and never an older one than before while all is well; and watches tell every change once and in order.
 */

const durationMs = 1_000 * Number(process.env.CHAOS_SECONDS ?? 25);
const seed = Number(process.env.CHAOS_SEED ?? 20_260_712);

it(`loses no acknowledged write of 32 writers in ${durationMs / 1000} s of faults at random (seed ${seed})`, {
  timeout: durationMs + 300_000,
}, async () => {
  const log = process.env.CHAOS_VERBOSE === undefined ? undefined : console.log;
  const report = await runConversationChaos({ seed, durationMs, ...(log && { log }) });
  console.log(`seed ${seed}:\n${accountInWords(report)}`);
  const { verdict, history, load, faults, problems, watchesOpened } = report;
  expect({ faults: verdict.faults, examples: verdict.examples, problems }).toEqual({
    ...{ faults: {}, examples: [], problems: [] },
  });
  // It was a run worth the name.
  const kinds = [
    "Redis killed",
    "Redis restarted empty",
    "Redis frozen",
    "Redis flushed",
    "an instance killed",
  ] as const;
  for (const kind of kinds) expect(faults[kind], kind).toBeGreaterThanOrEqual(1);
  expect(history.writes.length).toBeGreaterThan(500);
  expect(load.conflicts).toBeGreaterThan(20);
  expect(load.retries).toBeGreaterThan(0);
  expect(load.degraded.length).toBeGreaterThan(0);
  expect(verdict.strictReads).toBeGreaterThan(500);
  expect(watchesOpened, "a watch had to be resumed").toBeGreaterThan(2);
});
