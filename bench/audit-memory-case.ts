import { setTimeout as delay } from "node:timers/promises";
import { startRedis } from "../test/support/redis-server.ts";
import { type AuditCases, begin } from "./audit-cases.ts";
import { ingest } from "./audit-ingest.ts";
import { OTHER_CORE, peakResidentMiB, pin, residentMiB, startHoldfast } from "./sides.ts";

const MEMORY = "audit: memory, Redis outrun";
const SECONDS = 60;
const MOST_MB = 250;
/** Of every 50 ms Redis runs for 8: well within its time limit, and far less than four producers want. */
const RUNS_MS = 8;
const STANDS_MS = 42;
/** More than the window that the server grants: nothing but the contract holds the producers back. */
const IN_FLIGHT = 1_000;

/** What a server holds while four producers send all that their windows allow to a Redis that cannot keep up. */
export async function measureMemory(cases: AuditCases): Promise<void> {
  if (!cases.wanted(MEMORY)) return;
  begin(MEMORY);
  const seconds = Math.max(1, (SECONDS * cases.items) / 1_000_000);
  await using redis = await startRedis();
  pin(redis.pid, OTHER_CORE);
  await using side = await startHoldfast({ REDIS_URL: redis.url });
  const atRest = residentMiB(side.pid);
  const slowed = new AbortController();
  const slowing = slowDown(redis.pid, slowed.signal);
  const result = await ingest(side, { durationMs: seconds * 1000, inFlight: IN_FLIGHT });
  slowed.abort();
  await slowing;
  const peak = peakResidentMiB(side.pid);
  cases.add({
    name: MEMORY,
    figure: `${Math.round(peak)} MB`,
    target: `under ${MOST_MB} MB`,
    reached: peak < MOST_MB,
    notes: `the most in ${seconds} s, ${Math.round(atRest)} MB at rest; up to ${result.mostUnacked} records unacknowledged on each of 4 streams, ${result.records} acked`,
    details: { peak, atRest, result },
  });
}

async function slowDown(pid: number, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    process.kill(pid, "SIGSTOP");
    await delay(STANDS_MS);
    process.kill(pid, "SIGCONT");
    await delay(RUNS_MS);
  }
}
