import { expect, it } from "vitest";
import { type LivesChaosReport, runLivesChaos } from "./conversation-lives-run.ts";

/*
 * Promises: whatever happens to Postgres and to the instances, a deletion stays, a restored or forked version is the one that was, what
 * expires is gone and nothing else, and watches tell every change once and in order. Without Postgres hot copies are read and marked,
 * and what needs it is told when to try again.
 */

const durationMs = 1_000 * Number(process.env.CHAOS_SECONDS ?? 20);
const seed = Number(process.env.CHAOS_SEED ?? 20_261_120);

it(`loses no deletion, no fork and no change in ${durationMs / 1000} s without Postgres at random (seed ${seed})`, {
  timeout: durationMs + 300_000,
}, async () => {
  const log = process.env.CHAOS_VERBOSE === undefined ? undefined : console.log;
  const report = await runLivesChaos({ seed, durationMs, ...(log && { log }) });
  console.log(`seed ${seed}: ${accountOf(report)}`);
  const { verdict, history, load, faults, watchesOpened, problems } = report;
  expect({ faults: verdict.faults, examples: verdict.examples, problems }).toEqual({
    ...{ faults: {}, examples: [], problems: [] },
  });
  // It was a run worth the name.
  for (const kind of ["Postgres stopped", "Postgres killed", "Postgres frozen", "an instance killed"] as const) {
    expect(faults[kind], kind).toBeGreaterThanOrEqual(1);
  }
  for (const act of ["write", "append", "delete", "restore", "fork"]) {
    const done = history.deeds.filter((deed) => deed.act === act && deed.answer);
    expect(done.length, act).toBeGreaterThan(10);
  }
  const turns = new Set(history.told[0]?.changes.map(({ turn }) => turn));
  expect(turns).toEqual(new Set(["created", "updated", "appended", "restored", "deleted", "expired"]));
  expect(load.lateKeptOut).toBeGreaterThan(5);
  expect(load.callers.degraded.length, "hot copies were read without Postgres").toBeGreaterThan(0);
  const refused = load.callers.refusals.filter(({ code }) => code === "UNAVAILABLE");
  expect(refused.length, "writes were refused without Postgres").toBeGreaterThan(0);
  expect(refused.filter(({ hasRetryInfo }) => !hasRetryInfo).map(({ message }) => message)).toEqual([]);
  expect(verdict.strictSights).toBeGreaterThan(100);
  expect(watchesOpened, "a watch had to be resumed").toBeGreaterThan(2);
});

function accountOf({ verdict, history, load, faults, watchesOpened, problems }: LivesChaosReport): string {
  const { deeds, sights, told, rests } = history;
  const done = deeds.filter(({ answer }) => answer);
  const acts = Object.entries(Object.groupBy(done, ({ act }) => act)).map(([act, all]) => `${act} ${all?.length}`);
  return [
    `faults ${JSON.stringify(faults)};`,
    `${deeds.length} ordered, done: ${acts.join(", ")}; ${load.lateKeptOut} late writers kept out;`,
    `${sights.length} seen, ${verdict.strictSights} of which must not be behind; ${rests.length} read in the end;`,
    `told ${told.map(({ changes }) => changes.length).join(" and ")}, opened ${watchesOpened} times;`,
    `${load.callers.refusals.length} told to try again, ${load.callers.degraded.length} degraded;`,
    `FAULTS FOUND: ${JSON.stringify(verdict.faults)}`,
    ...[...verdict.examples, ...problems.slice(0, 10)].map((example) => `\n  ! ${example}`),
  ].join(" ");
}
