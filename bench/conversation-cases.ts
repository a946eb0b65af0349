import { join } from "node:path";
import { createConversationClient } from "../test/support/conversation-client.ts";
import { startPostgres } from "../test/support/postgres-server.ts";
import { startRedis } from "../test/support/redis-server.ts";
import { scratchDirectory } from "../test/support/scratch.ts";
import { bodyText } from "./conversation-messages.ts";
import type { UpsertOrder, UpsertResult } from "./conversation-upsert-process.ts";
import { compare, median, type Slice, slice } from "./ratio.ts";
import type { Row } from "./report.ts";
import { OTHER_CORE, pin, runOn, SERVER_CORE, type Side, startBare, startHoldfast } from "./sides.ts";

const GET = "conversation: Get of 4 KB, Redis";
const IN_SQLITE = "conversation: Save embedded, 4 KB";
const IN_POSTGRES = "conversation: Save in Postgres, 4 KB";
const FLAT = "conversation: AppendMessages to 10,000";
const GET_TARGET = 0.5;
const SAVE_TARGET = 0.4;
const FLAT_RATIO = 1.2;
const LONG = 10_000;
const SHORT = 10;
const SHORT_ONES = 200;
/** A request carries no more. */
const PORTION = 1_000;
const CALLERS = { connections: 4, streams: 25 } as const;

export interface ConversationCases {
  readonly rounds: number;
  readonly sliceMs: number;
  wanted(name: string): boolean;
  add(row: Row): void;
}

/** Conversations: a Get beside a handler that keeps nothing; writes beside a plain upsert of the state, and to a long one beside short ones. */
export async function measureConversations(cases: ConversationCases): Promise<void> {
  if (cases.wanted(GET)) await measureGet(cases);
  if (cases.wanted(IN_SQLITE) || cases.wanted(FLAT)) {
    using directory = scratchDirectory("bench-conversation");
    await using side = await startHoldfast({ HOLDFAST_DATA_DIR: directory.path });
    const baseline = { name: "better-sqlite3", database: join(directory.path, "plain.db") };
    if (cases.wanted(IN_SQLITE)) await measureSave(IN_SQLITE, cases, side, baseline);
    if (cases.wanted(FLAT)) await measureFlat(cases, side);
  }
  if (cases.wanted(IN_POSTGRES)) {
    // Unlike in tests, a commit is one.
    const settings = { fsync: "on", full_page_writes: "on", shared_buffers: "128MB", max_wal_size: "1GB" };
    await using postgres = await startPostgres({ settings });
    pin(postgres.pid, OTHER_CORE);
    const database = await postgres.createDatabase();
    await using side = await startHoldfast({ DATABASE_URL: database });
    await measureSave(IN_POSTGRES, cases, side, { name: "pg", database });
  }
}

/** From the hot copies, beside a handler that keeps nothing. */
async function measureGet({ rounds, sliceMs, add }: ConversationCases): Promise<void> {
  process.stderr.write(`${GET} ...\n`);
  await using redis = await startRedis();
  pin(redis.pid, OTHER_CORE);
  await using bare = await startBare();
  await using side = await startHoldfast({ REDIS_URL: redis.url });
  await slice(side, { path: "Save", ...CALLERS }, sliceMs);
  const { rate, cpu, rounds: done } = await compare(bare, side, { path: "GetConversation" }, { rounds, sliceMs });
  add({
    name: GET,
    figure: `${rate.toFixed(2)} x`,
    target: `${GET_TARGET} x`,
    reached: rate >= GET_TARGET,
    notes: `of the bare handler; ${cpu.toFixed(2)} x by processor time a call`,
    details: { rate, cpu, rounds: done },
  });
}

async function measureSave(
  name: string,
  { rounds, sliceMs, add }: ConversationCases,
  side: Side,
  baseline: { readonly name: string; readonly database: string },
): Promise<void> {
  process.stderr.write(`${name} ...\n`);
  const callers = CALLERS.connections * CALLERS.streams;
  const upsert = (durationMs: number) => {
    const order: UpsertOrder = { database: baseline.database, callers, durationMs };
    return runOn<UpsertResult>(SERVER_CORE, "conversation-upsert-process.ts", order);
  };
  const save = (durationMs: number) => slice(side, { path: "Save", ...CALLERS }, durationMs);
  await upsert(sliceMs / 2);
  await save(sliceMs / 2);
  const done: { readonly plain: UpsertResult; readonly ours: Slice }[] = [];
  for (let i = 0; i < rounds; i++) done.push({ plain: await upsert(sliceMs), ours: await save(sliceMs) });
  const rate = median(done.map(({ plain, ours }) => (ours.perSecond * plain.seconds) / plain.calls));
  const cpu = median(done.map(({ plain, ours }) => (plain.cpuMs * 1000) / plain.calls / ours.cpuMicros));
  add({
    name,
    figure: `${rate.toFixed(2)} x`,
    target: `${SAVE_TARGET} x`,
    reached: rate >= SAVE_TARGET,
    notes: `of ${baseline.name} upserting the state alone, ${callers} callers; ${cpu.toFixed(2)} x by processor time a call`,
    details: { rate, cpu, rounds: done },
  });
}

/** One caller: what an append costs. */
async function measureFlat({ rounds, sliceMs, add }: ConversationCases, side: Side): Promise<void> {
  process.stderr.write(`${FLAT} ...\n`);
  const short = Array.from({ length: SHORT_ONES }, (_, number) => `short-${number}`);
  await fill(side, ["long"], LONG);
  await fill(side, short, SHORT);
  const appends = (ids: readonly string[]) =>
    slice(side, { path: "AppendMessages", ids, connections: 1, streams: 1 }, sliceMs / 2);
  await appends(short);
  const done: { readonly long: Slice; readonly short: Slice }[] = [];
  for (let i = 0; i < rounds; i++) done.push({ short: await appends(short), long: await appends(["long"]) });
  const time = median(done.map((round) => round.long.p50 / round.short.p50));
  const cpu = median(done.map((round) => round.long.cpuMicros / round.short.cpuMicros));
  add({
    name: FLAT,
    figure: `p50 ${time.toFixed(2)} x`,
    target: `at most ${FLAT_RATIO} x`,
    reached: time <= FLAT_RATIO && cpu <= FLAT_RATIO,
    notes: `of an append to one of ${SHORT} messages; ${cpu.toFixed(2)} x by processor time a call`,
    details: { time, cpu, rounds: done },
  });
}

async function fill(side: Side, ids: readonly string[], messages: number): Promise<void> {
  using client = createConversationClient(`127.0.0.1:${side.port}`);
  for (const id of ids) {
    for (let left = messages; left > 0; left -= PORTION) {
      const portion = Array.from({ length: Math.min(PORTION, left) }, () => ({ role: "user", content: bodyText }));
      await client.append(id, portion, { create: true });
    }
  }
}
