import { join } from "node:path";
import { startPostgres } from "../test/support/postgres-server.ts";
import { type RedisServer, startRedis } from "../test/support/redis-server.ts";
import { scratchDirectory } from "../test/support/scratch.ts";
import { type AuditCases, begin, type Round, ratioRow, wholeBatches } from "./audit-cases.ts";
import { cpuOf, IN_FLIGHT, ingest, STREAMS } from "./audit-ingest.ts";
import type { IngestResult } from "./audit-ingest-process.ts";
import { type Progress, watchPostgres, watchSqlite } from "./audit-progress.ts";
import type { XaddOrder, XaddResult } from "./audit-xadd-process.ts";
import { OTHER_CORE, pin, runOn, SERVER_CORE, type Side, startHoldfast } from "./sides.ts";

const ACKED = "audit: Ingest acked, Redis";
const IN_SQLITE = "audit: Ingest until in SQLite";
const IN_POSTGRES = "audit: Ingest until in Postgres";
const ARCHIVED_SHARE = 0.12;
const MOST_ROUNDS = 3;
/** Rounds that are for the compiler. */
const WARM_UPS = 1;
const WARM_UP_SHARE = 0.04;

/** Records through Redis, beside ioredis pipelining an XADD of each. */
export async function measureQueue(cases: AuditCases): Promise<void> {
  if (!cases.wanted(ACKED) && !cases.wanted(IN_SQLITE) && !cases.wanted(IN_POSTGRES)) return;
  await using redis = await startRedis();
  pin(redis.pid, OTHER_CORE);
  if (cases.wanted(ACKED) || cases.wanted(IN_SQLITE)) {
    using directory = scratchDirectory("bench-audit");
    await using side = await startHoldfast({ REDIS_URL: redis.url, HOLDFAST_DATA_DIR: directory.path });
    await using progress = watchSqlite(join(directory.path, "holdfast.db"));
    const setting = { cases, redis, side, progress };
    if (cases.wanted(ACKED)) await measureAcked(setting);
    if (cases.wanted(IN_SQLITE)) await measureArchived(IN_SQLITE, setting);
  }
  if (cases.wanted(IN_POSTGRES)) {
    // Unlike in tests, a commit is one.
    const settings = { fsync: "on", full_page_writes: "on", shared_buffers: "128MB", max_wal_size: "1GB" };
    await using postgres = await startPostgres({ settings });
    pin(postgres.pid, OTHER_CORE);
    const url = await postgres.createDatabase();
    await using side = await startHoldfast({ REDIS_URL: redis.url, DATABASE_URL: url, AUDIT_STREAM: "audit:cluster" });
    await using progress = await watchPostgres(url);
    await measureArchived(IN_POSTGRES, { cases, redis, side, progress });
  }
}

interface Setting {
  readonly cases: AuditCases;
  readonly redis: RedisServer;
  readonly side: Side;
  readonly progress: Progress;
}

async function measureAcked(setting: Setting): Promise<void> {
  const { cases, side, progress } = setting;
  begin(ACKED);
  const rounds: Round[] = [];
  for (let i = -WARM_UPS; i < cases.rounds; i++) {
    const bare = await xadd(setting);
    const size = await progress.size();
    const cpu = cpuOf(side);
    const ours = await ingest(side, { durationMs: cases.sliceMs });
    const cpuMicros = (cpu() * 1000) / ours.records;
    // The next slice is to find an empty queue.
    await progress.indexed(size + ours.records);
    if (i >= 0) rounds.push(round(bare, { rate: ours.records / ours.seconds, cpuMicros, ours }));
  }
  cases.add(ratioRow(ACKED, 0.5, rounds, "ioredis pipelining an XADD of each record"));
}

async function measureArchived(name: string, setting: Setting): Promise<void> {
  const { cases, side, progress } = setting;
  begin(name);
  const rounds: Round[] = [];
  for (let i = -WARM_UPS; i < Math.min(MOST_ROUNDS, cases.rounds); i++) {
    const bare = await xadd(setting);
    const size = await progress.size();
    const cpu = cpuOf(side);
    const records = wholeBatches(cases.items * (i < 0 ? WARM_UP_SHARE : ARCHIVED_SHARE));
    const ours = await ingest(side, { records });
    const archivedMs = (await progress.reached(size + ours.records)) - ours.firstSentMs;
    const cpuMicros = (cpu() * 1000) / ours.records;
    await progress.indexed(size + ours.records);
    if (i >= 0) rounds.push(round(bare, { rate: (ours.records * 1000) / archivedMs, cpuMicros, ours }));
  }
  const records = wholeBatches(cases.items * ARCHIVED_SHARE);
  cases.add(ratioRow(name, 0.25, rounds, `that XADD rate, until the last of ${records} records is in SQL`));
}

function round(bare: XaddResult, ours: Round["ours"] & { readonly ours: IngestResult }): Round {
  const { rate, cpuMicros } = ours;
  return {
    baseline: { rate: bare.records / bare.seconds, cpuMicros: (bare.cpuMs * 1000) / bare.records },
    ours: { rate, cpuMicros },
    degraded: ours.ours.degraded,
    details: { bare, ours: ours.ours },
  };
}

function xadd({ redis, cases: { sliceMs } }: Setting): Promise<XaddResult> {
  const order: XaddOrder = { url: redis.url, pipelines: STREAMS * IN_FLIGHT, durationMs: sliceMs };
  return runOn<XaddResult>(SERVER_CORE, "audit-xadd-process.ts", order);
}
