import { parseArgs } from "node:util";
import { startRedis } from "../test/support/redis-server.ts";
import type { AuditCases } from "./audit-cases.ts";
import { measureEmbedded } from "./audit-embedded-cases.ts";
import { measureList } from "./audit-list-cases.ts";
import { measureMemory } from "./audit-memory-case.ts";
import { measureQueue } from "./audit-queue-cases.ts";
import { measureConversations } from "./conversation-cases.ts";
import { measureDedup } from "./dedup-cases.ts";
import { measureFrozen } from "./frozen.ts";
import { measureLocks } from "./lock-cases.ts";
import { measureRateLimits } from "./ratelimit-cases.ts";
import { type CacheCall, type Call, compare } from "./ratio.ts";
import { type Row, table, writeReport } from "./report.ts";
import { benchYaml, OTHER_CORE, pin, type Side, startBare, startHoldfast } from "./sides.ts";
import { measureStart } from "./start.ts";

/**
 * `make bench`: Holdfast beside what a user would have without it, both in one run on the same cores. Every figure is a ratio,
 * or a bound on time and memory; the absolute numbers are in the JSON.
 */
const USAGE = `make bench ARGS="..."   (about twelve minutes, on a machine that does nothing else)

  --only TEXT      only cases whose name contains the text
  --rounds N       slices of load for each side and case; default 5
  --slice MS       how long each is; default 2000
  --items N        durable items for the start and memory figures; what is archived, listed (five times as many records) and
                   how long Redis is outrun (60 s) follow it; default 1000000

Ends with 1 when a target is missed.
`;
const { values } = parseArgs({
  options: {
    only: { type: "string", default: "" },
    rounds: { type: "string", default: "5" },
    slice: { type: "string", default: "2000" },
    items: { type: "string", default: "1000000" },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  process.stdout.write(USAGE);
  process.exit(0);
}
const rounds = Number(values.rounds);
const sliceMs = Number(values.slice);
const rows: Row[] = [];
const wanted = (name: string) => name.toLowerCase().includes(values.only.toLowerCase());

interface Case {
  readonly name: string;
  readonly call: Call;
  readonly target: number;
  /** The namespace that is filled before it is read. */
  readonly seed?: string;
}

async function runCase(bare: Side, ours: Side, { name, call, target, seed }: Case): Promise<void> {
  if (!wanted(name)) return;
  process.stderr.write(`${name} ...\n`);
  if (seed !== undefined) await fill(ours, seed);
  const { rate, cpu, rounds: done } = await compare(bare, ours, call, { rounds, sliceMs });
  rows.push({
    name,
    figure: `${rate.toFixed(2)} x`,
    target: `${target} x`,
    reached: rate >= target,
    notes: `${cpu.toFixed(2)} x by processor time a call`,
    details: { rate, cpu, rounds: done },
  });
}

async function fill(side: Side, namespace: string): Promise<void> {
  await compare(side, side, { path: "Set", namespace }, { rounds: 0, sliceMs: 1_000 });
}

const frozenNames = { memory: "Get while Redis is frozen, L1", beyond: "Get while Redis is frozen, past L1" };

{
  await using bare = await startBare();
  {
    await using ours = await startHoldfast({ HOLDFAST_CONFIG: benchYaml });
    const namespace = "default";
    await runCase(bare, ours, { name: "Get, L1 hit", call: { path: "Get", namespace }, target: 0.85, seed: namespace });
    await runCase(bare, ours, {
      name: "GetMany of 50, L1",
      call: { path: "GetMany", namespace },
      target: 0.6,
      seed: namespace,
    });
    await runCase(bare, ours, {
      name: "Set embedded, SQLite",
      call: { path: "Set", namespace: "durable" },
      target: 0.5,
    });
  }
  const redis = await startRedis();
  pin(redis.pid, OTHER_CORE);
  await using ours = await startHoldfast({
    HOLDFAST_CONFIG: benchYaml,
    REDIS_URL: redis.url,
    CIRCUIT_BREAKER_RESET_TIMEOUT: "1000",
  });
  const beyond: CacheCall = { path: "Get", namespace: "beyond-memory" };
  await runCase(bare, ours, { name: "Get from Redis, L1 off", call: beyond, target: 0.7, seed: beyond.namespace });
  await runCase(bare, ours, { name: "Set with Redis", call: { path: "Set", namespace: "default" }, target: 0.5 });
  const memory: CacheCall = { path: "Get", namespace: "default" };
  for (const [name, call] of [
    [frozenNames.memory, memory],
    [frozenNames.beyond, beyond],
  ] as const) {
    if (!wanted(name)) continue;
    process.stderr.write(`${name} ...\n`);
    await fill(ours, call.namespace);
    const figures = await measureFrozen(ours, redis, call, beyond, sliceMs);
    const ratio = figures.frozenP99 / figures.healthyP99;
    rows.push({
      name,
      figure: `p99 ${ratio.toFixed(2)} x healthy`,
      target: "at most 2 x",
      reached: ratio <= 2,
      notes: `slowest of all ${figures.frozenMax.toFixed(1)} ms; none failed`,
      details: figures,
    });
  }
  await redis.stop();
}

if (wanted("start and memory")) {
  process.stderr.write("start and memory ...\n");
  const figures = await measureStart(Number(values.items));
  const { items, startMs, emptyMB, restMB, fullMB } = figures;
  const bound = (name: string, value: number, most: number, unit: string, notes: string) =>
    rows.push({
      name,
      figure: `${Math.round(value)} ${unit}`,
      target: `under ${most} ${unit}`,
      reached: value < most,
      notes,
      details: figures,
    });
  bound("start to first answer", startMs, 1_000, "ms", `${items} durable items in SQL`);
  bound("memory at rest", Math.max(emptyMB, restMB), 100, "MB", `${Math.round(emptyMB)} MB with nothing stored`);
  bound("memory with L1 full", fullMB, 150, "MB", `after reading all ${items} items`);
}

const audit: AuditCases = {
  ...{ rounds, sliceMs, wanted },
  items: Number(values.items),
  add: (row) => void rows.push(row),
};
await measureQueue(audit);
await measureEmbedded(audit);
await measureList(audit);
await measureMemory(audit);
await measureConversations(audit);
await measureLocks(audit);
await measureRateLimits(audit);
await measureDedup(audit);

process.stdout.write(`${table(rows)}\n\nEverything measured: ${writeReport(rows)}\n`);
if (rows.some((row) => !row.reached)) process.exitCode = 1;
