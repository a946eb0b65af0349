import { startPostgres } from "../test/support/postgres-server.ts";
import { startRedis } from "../test/support/redis-server.ts";
import type { HandOverResult } from "./hand-overs.ts";
import type { HandOverOrder } from "./lock-hand-over-process.ts";
import type { PairOrder, PairResult } from "./lock-load-process.ts";
import { median, type Slice, slice } from "./ratio.ts";
import type { RedlockOrder } from "./redlock-process.ts";
import type { Row } from "./report.ts";
import { cpuMs, OTHER_CORE, pin, runOn, SERVER_CORE, startBare, startHoldfast } from "./sides.ts";

const FREE = "lock: Acquire and Release, Redis";
const CONTENDED = "lock: hand-over, 10 waiters on 2 instances";
const FREE_TARGET = 0.6;
const HAND_OVER_MS = 3;
const CALLERS = 100;
const WAITERS = 10;
const WORK_MS = 5;

export interface LockCases {
  readonly rounds: number;
  readonly sliceMs: number;
  wanted(name: string): boolean;
  add(row: Row): void;
}

/** Locks, beside node-redlock called in the process of its callers. */
export async function measureLocks(cases: LockCases): Promise<void> {
  if (cases.wanted(FREE)) await measureFree(cases);
  if (cases.wanted(CONTENDED)) await measureContended(cases);
}

async function measureFree({ rounds, sliceMs, add }: LockCases): Promise<void> {
  process.stderr.write(`${FREE} ...\n`);
  await using redis = await startRedis();
  pin(redis.pid, OTHER_CORE);
  await using side = await startHoldfast({ REDIS_URL: redis.url });
  await using bare = await startBare();
  // What two calls cost whatever they do: more than this no lock behind gRPC can come to.
  const floor = (durationMs: number) =>
    slice(bare, { path: "Get", namespace: "default", connections: 4, streams: CALLERS / 4 }, durationMs);
  const plain = (durationMs: number) => {
    const order: RedlockOrder = { url: redis.url, callers: CALLERS, durationMs };
    return runOn<PairResult>(SERVER_CORE, "redlock-process.ts", order);
  };
  const ours = async (durationMs: number) => {
    const order: PairOrder = { port: side.port, connections: 4, callers: CALLERS / 4, durationMs };
    const before = cpuMs(side.pid) ?? Number.NaN;
    const result = await runOn<PairResult>(OTHER_CORE, "lock-load-process.ts", order);
    return { ...result, cpuMs: (cpuMs(side.pid) ?? Number.NaN) - before };
  };
  // Until all of it is compiled: what runs only now and then in a second takes several.
  await plain(sliceMs);
  await ours(2 * sliceMs);
  await floor(2 * sliceMs);
  const done: { readonly plain: PairResult; readonly ours: PairResult; readonly bare: Slice }[] = [];
  for (let i = 0; i < rounds; i++) {
    done.push({ plain: await plain(sliceMs), ours: await ours(sliceMs), bare: await floor(sliceMs) });
  }
  const perSecond = ({ pairs, seconds }: PairResult) => pairs / seconds;
  const rate = median(done.map((round) => perSecond(round.ours) / perSecond(round.plain)));
  const most = median(done.map((round) => round.bare.perSecond / 2 / perSecond(round.plain)));
  const share = median(done.map((round) => perSecond(round.ours) / (round.bare.perSecond / 2)));
  const cpu = median(done.map((round) => (2 * round.bare.cpuMicros) / 1_000 / (round.ours.cpuMs / round.ours.pairs)));
  add({
    name: FREE,
    figure: `${rate.toFixed(2)} x`,
    target: `${FREE_TARGET} x`,
    reached: rate >= FREE_TARGET,
    notes:
      `of node-redlock in process; two calls of the bare handler come to ${most.toFixed(2)} x, ` +
      `and of that it is ${share.toFixed(2)} x, ${cpu.toFixed(2)} x by processor time`,
    details: { rate, most, share, cpu, rounds: done },
  });
}

async function measureContended({ rounds, sliceMs, add }: LockCases): Promise<void> {
  process.stderr.write(`${CONTENDED} ...\n`);
  await using redis = await startRedis();
  await using postgres = await startPostgres();
  pin(redis.pid, OTHER_CORE);
  pin(postgres.pid, OTHER_CORE);
  const env = { REDIS_URL: redis.url, DATABASE_URL: await postgres.createDatabase() };
  await using one = await startHoldfast(env);
  await using two = await startHoldfast(env);
  const order: HandOverOrder = {
    ports: [one.port, two.port],
    ...{ callers: WAITERS, workMs: WORK_MS },
    durationMs: sliceMs,
  };
  const done: { readonly plain: HandOverResult; readonly ours: HandOverResult }[] = [];
  for (let i = 0; i < rounds; i++) {
    const plain: RedlockOrder = { url: redis.url, callers: WAITERS, workMs: WORK_MS, durationMs: sliceMs };
    done.push({
      plain: await runOn<HandOverResult>(OTHER_CORE, "redlock-process.ts", plain),
      ours: await runOn<HandOverResult>(OTHER_CORE, "lock-hand-over-process.ts", order),
    });
  }
  const ours = median(done.map((round) => round.ours.p50));
  const plain = median(done.map((round) => round.plain.p50));
  add({
    name: CONTENDED,
    figure: `p50 ${ours.toFixed(1)} ms`,
    target: `under ${HAND_OVER_MS} ms`,
    reached: ours < HAND_OVER_MS,
    notes: `node-redlock: ${plain.toFixed(0)} ms`,
    details: { ours, plain, rounds: done },
  });
}
