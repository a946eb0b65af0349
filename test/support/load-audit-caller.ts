import { setTimeout as delay } from "node:timers/promises";
import { type AuditAck, AuditDurability as Durability } from "../../src/gen/holdfast/v1/audit_pb.js";
import type { RequestClaim } from "./audit-claims.ts";
import { type AuditClient, CallFailed, createAuditClient, unnamed } from "./audit-client.ts";
import { requestEntryOf } from "./audit-entries.ts";
import { createRandom, type LoadContext, runLoad } from "./load-child.ts";

/**
 * A process of callers that append a few records now and then, without a producer of their own: each attempt is repeated under its
 * request id, at one instance after the other, until it is acknowledged.
 */
export interface CallerJob {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly callers: number;
  readonly pauseMs: number;
  readonly seed: number;
  /** How long an attempt that is under way when they are told to stop is repeated. */
  readonly patienceMs: number;
}

export interface CallerReport {
  readonly requests: readonly RequestClaim[];
  readonly problems: readonly string[];
  readonly calls: number;
  /** Why calls failed, and how often. */
  readonly failures: Readonly<Record<string, number>>;
  readonly byDurability: Readonly<Record<string, number>>;
  readonly degraded: number;
  /** From the first call of an attempt to its ack. */
  readonly slowestAckMs: number;
}

export function isCallerReport(report: unknown): report is CallerReport {
  return typeof report === "object" && report !== null && "requests" in report && "slowestAckMs" in report;
}

const DEADLINE_MS = 4_000;
const demands = [Durability.UNSPECIFIED, Durability.UNSPECIFIED, Durability.QUEUED, Durability.ARCHIVED];

async function work(job: CallerJob, context: LoadContext): Promise<CallerReport> {
  const clients = job.addresses.map((address) => createAuditClient(address, { deadlineMs: DEADLINE_MS }));
  const requests: RequestClaim[] = [];
  const problems: string[] = [];
  const failures: Record<string, number> = {};
  const byDurability: Record<string, number> = {};
  const counts = { calls: 0, degraded: 0, slowestAckMs: 0 };
  let giveUpAt = Number.POSITIVE_INFINITY;

  async function attempt(client: AuditClient, requestId: string, records: number, minDurability: Durability) {
    counts.calls++;
    try {
      const entries = Array.from({ length: records }, (_, at) => requestEntryOf(requestId, at));
      return await client.append(unnamed(...entries), { requestId, minDurability });
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error;
      const why = `${error.code} ${error.reason}`;
      failures[why] = (failures[why] ?? 0) + 1;
      // Time and again is right only for what may pass.
      if (!["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"].includes(error.code)) {
        problems.push(`${requestId}: ${error.message}`);
      }
      return undefined;
    }
  }

  function check(requestId: string, records: number, minDurability: Durability, acks: readonly AuditAck[]): void {
    if (acks.length !== records) problems.push(`${requestId}: ${acks.length} acks for ${records} records`);
    for (const { id, durability } of acks) {
      const name = Durability[durability];
      byDurability[name] = (byDurability[name] ?? 0) + 1;
      if (durability < Math.max(minDurability, Durability.JOURNALED)) problems.push(`${id} was acked as ${name}`);
    }
  }

  async function callAgainAndAgain(caller: number): Promise<void> {
    const random = createRandom(job.seed * 41 + caller);
    const client = () => clients[random(clients.length)] ?? fail();
    for (let turn = 0; !context.stopping; turn++) {
      const requestId = `${job.name}-${caller}-${turn}`;
      const records = 1 + random(3);
      const demand = demands[random(demands.length)] ?? Durability.UNSPECIFIED;
      const start = performance.now();
      let acks: readonly AuditAck[] | undefined;
      while (acks === undefined && performance.now() < giveUpAt) {
        if (context.stopping) giveUpAt = Math.min(giveUpAt, performance.now() + job.patienceMs);
        acks = await attempt(client(), requestId, records, demand);
        if (acks === undefined) await delay(50 + random(150));
      }
      requests.push({ requestId, records, ids: acks?.map(({ id }) => id) });
      if (acks !== undefined) {
        counts.slowestAckMs = Math.max(counts.slowestAckMs, performance.now() - start);
        check(requestId, records, demand, acks);
        // A caller that did not see the answer asks once more, elsewhere perhaps, and is told the same.
        const repeated = random(4) === 0 ? await attempt(client(), requestId, records, demand) : undefined;
        const [one, other] = [acks, repeated ?? acks].map((some) => some.map(({ id }) => id).join(" "));
        if (one !== other) problems.push(`${requestId} was acked as ${one} and then as ${other}`);
      }
      await delay(job.pauseMs);
    }
  }

  await Promise.all(Array.from({ length: job.callers }, (_, caller) => callAgainAndAgain(caller)));
  for (const client of clients) client[Symbol.dispose]();
  return { requests, problems, ...counts, failures, byDurability };
}

function fail(): never {
  throw new Error("nobody to call");
}

if (import.meta.main) await runLoad((job, context) => work(job as CallerJob, context));
