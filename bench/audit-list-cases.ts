import { join } from "node:path";
import { AuditService } from "../src/gen/holdfast/v1/audit_pb.js";
import { createAuditClient } from "../test/support/audit-client.ts";
import { scratchDirectory } from "../test/support/scratch.ts";
import { type AuditCases, begin } from "./audit-cases.ts";
import type { FillOrder } from "./audit-fill-process.ts";
import { watchSqlite } from "./audit-progress.ts";
import { ACTORS, RARE } from "./audit-records.ts";
import { median, type Slice, slice } from "./ratio.ts";
import { OTHER_CORE, runOn, SERVER_CORE, type Side, startHoldfast } from "./sides.ts";

const BY_ACTOR = "audit: List of 100 by actor";
const BY_RARE = "audit: List of a rare actor";
const FLAT = "audit: List, five times the records";
const PAGE = 100;
const TIMES = 5;
const MOST_MS = 20;
const FLAT_RATIO = 1.5;

/** Pages out of an archive in SQLite, beside the same out of one five times as large. One caller: how long a page takes. */
export async function measureList(cases: AuditCases): Promise<void> {
  if (![BY_ACTOR, BY_RARE, FLAT].some(cases.wanted)) return;
  begin(BY_ACTOR);
  const { items } = cases;
  const [first, second] = await Promise.all([filled(items, SERVER_CORE), filled(items * TIMES, OTHER_CORE)]);
  await using small = first;
  await using large = second;
  const actors = Array.from({ length: ACTORS }, (_, number) => `user:${(number * 7_919) % ACTORS}`);
  for (const side of [small, large]) await checkPage(side, actors[0] ?? "", Math.min(PAGE, items / ACTORS));
  await checkPage(large, RARE.actor, Math.floor((items * TIMES) / RARE.every));

  const usual = await compareSizes(cases, small, large, actors);
  const rare = await compareSizes(cases, small, large, [RARE.actor]);
  for (const [name, { p50, p99, cpuMs, details }] of [
    [BY_ACTOR, usual],
    [BY_RARE, rare],
  ] as const) {
    if (!cases.wanted(name)) continue;
    cases.add({
      name,
      figure: `p99 ${p99.large.toFixed(1)} ms`,
      target: `under ${MOST_MS} ms`,
      reached: Math.max(p50.large, p50.small, p99.large, p99.small) < MOST_MS,
      notes: `p50 ${p50.large.toFixed(1)} ms, ${cpuMs.toFixed(1)} ms of processor time, among ${items * TIMES} records; p99 ${p99.small.toFixed(1)} ms among ${items}`,
      details,
    });
  }
  if (!cases.wanted(FLAT)) return;
  cases.add({
    name: FLAT,
    figure: `p50 ${usual.flat.toFixed(2)} x`,
    target: `at most ${FLAT_RATIO} x`,
    reached: usual.flat <= FLAT_RATIO,
    notes: `${items * TIMES} records beside ${items}; ${rare.flat.toFixed(2)} x for the rare actor, who is looked for everywhere`,
    details: { usual: usual.flat, rare: rare.flat },
  });
}

/** A server over an archive of so many records, all of them in its index. */
async function filled(records: number, core: number): Promise<Side> {
  const directory = scratchDirectory("bench-audit");
  const path = join(directory.path, "holdfast.db");
  const order: FillOrder = { path, records };
  await runOn(core, "audit-fill-process.ts", order);
  const side = await startHoldfast({ HOLDFAST_DATA_DIR: directory.path });
  await using progress = watchSqlite(path);
  await progress.indexed(records);
  return {
    ...side,
    [Symbol.asyncDispose]: async () => {
      await side[Symbol.asyncDispose]();
      directory.remove();
    },
  };
}

/** A fast answer that is wrong is none. */
async function checkPage(side: Side, actor: string, most: number): Promise<void> {
  using client = createAuditClient(`127.0.0.1:${side.port}`);
  const { records } = (await client.call(AuditService.method.list, { filter: { actors: [actor] } })).reply;
  const times = records.map(({ entry }) => Number(entry?.occurTime?.seconds ?? 0));
  const sorted = times.every((time, at) => at === 0 || time <= (times[at - 1] ?? 0));
  if (records.length !== most || !sorted || records.some(({ entry }) => entry?.actor !== actor)) {
    throw new Error(`a page of ${actor} has ${records.length} records, and not the newest ${most} of that actor`);
  }
}

async function compareSizes(cases: AuditCases, small: Side, large: Side, actors: readonly string[]) {
  const call = { path: "List", actors, connections: 1, streams: 1 } as const;
  const ms = cases.sliceMs / 2;
  for (const side of [small, large]) await slice(side, call, ms);
  const rounds: { small: Slice; large: Slice }[] = [];
  for (let i = 0; i < cases.rounds; i++) {
    rounds.push({ small: await slice(small, call, ms), large: await slice(large, call, ms) });
  }
  const middle = (of: (round: { small: Slice; large: Slice }) => number) => median(rounds.map(of));
  return {
    p50: { small: middle((one) => one.small.p50), large: middle((one) => one.large.p50) },
    p99: { small: middle((one) => one.small.p99), large: middle((one) => one.large.p99) },
    cpuMs: middle((one) => one.large.cpuMicros / 1000),
    flat: middle((one) => one.large.p50 / one.small.p50),
    details: rounds,
  };
}
