import { join } from "node:path";
import { scratchDirectory } from "../test/support/scratch.ts";
import { type AuditCases, begin, type Round, ratioRow, wholeBatches } from "./audit-cases.ts";
import { cpuOf, ingest } from "./audit-ingest.ts";
import type { InsertOrder, InsertResult } from "./audit-insert-process.ts";
import { watchSqlite } from "./audit-progress.ts";
import type { Schema } from "./audit-rows.ts";
import { compare, median } from "./ratio.ts";
import { runOn, SERVER_CORE, startBare, startHoldfast } from "./sides.ts";

const INGEST = "audit: Ingest embedded, fsynced";
const APPEND = "audit: Append by 100 callers";
const INGEST_SHARE = 0.25;
const MOST_ROUNDS = 3;
const WARM_UPS = 1;
const WARM_UP_SHARE = 0.04;

/** Records straight into SQLite: streams beside better-sqlite3 itself, single calls beside a handler that keeps nothing. */
export async function measureEmbedded(cases: AuditCases): Promise<void> {
  if (cases.wanted(INGEST)) await measureIngest(cases);
  if (cases.wanted(APPEND)) await measureAppend(cases);
}

async function measureIngest(cases: AuditCases): Promise<void> {
  begin(INGEST);
  using directory = scratchDirectory("bench-audit");
  using rows = scratchDirectory("bench-rows");
  await using side = await startHoldfast({ HOLDFAST_DATA_DIR: directory.path });
  await using progress = watchSqlite(join(directory.path, "holdfast.db"));
  const insert = (schema: Schema, records: number) => {
    const order: InsertOrder = { path: join(rows.path, `${schema}.db`), schema, records };
    return runOn<InsertResult>(SERVER_CORE, "audit-insert-process.ts", order);
  };
  const rounds: (Round & { readonly toBare: number })[] = [];
  for (let i = -WARM_UPS; i < Math.min(MOST_ROUNDS, cases.rounds); i++) {
    const records = wholeBatches(cases.items * (i < 0 ? WARM_UP_SHARE : INGEST_SHARE));
    const same = await insert("server", records);
    const size = await progress.size();
    const cpu = cpuOf(side);
    const ours = await ingest(side, { records });
    // The index of what came is part of what it costs to keep it up.
    const ms = (await progress.indexed(size + ours.records)) - ours.firstSentMs;
    const rate = (ours.records * 1000) / ms;
    const cpuMicros = (cpu() * 1000) / ours.records;
    const bare = await insert("bare", records);
    if (i < 0) continue;
    rounds.push({
      baseline: { rate: same.records / same.seconds, cpuMicros: (same.cpuMs * 1000) / same.records },
      ours: { rate, cpuMicros },
      degraded: ours.degraded,
      toBare: rate / (bare.records / bare.seconds),
      details: { same, bare, ours },
    });
  }
  const toBare = median(rounds.map((one) => one.toBare)).toFixed(2);
  const of = `better-sqlite3 inserting the same rows, ${toBare} x without their indexes`;
  cases.add(ratioRow(INGEST, 0.4, rounds, of));
}

async function measureAppend({ rounds, sliceMs, add }: AuditCases): Promise<void> {
  begin(APPEND);
  await using bare = await startBare();
  await using side = await startHoldfast({});
  const call = { path: "Append", connections: 4, streams: 25 } as const;
  const { rate, cpu, rounds: done } = await compare(bare, side, call, { rounds, sliceMs });
  add({
    name: APPEND,
    figure: `${rate.toFixed(2)} x`,
    target: "0.4 x",
    reached: rate >= 0.4,
    notes: `of the bare handler; ${cpu.toFixed(2)} x by processor time a call; 4 producers, rising sequences`,
    details: { rate, cpu, rounds: done },
  });
}
