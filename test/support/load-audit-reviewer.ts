import { setTimeout as delay } from "node:timers/promises";
import { AuditDecision, AuditService, AuditStatus } from "../../src/gen/holdfast/v1/audit_pb.js";
import type { ReviewClaim } from "./audit-claims.ts";
import { type AuditClient, CallFailed, createAuditClient } from "./audit-client.ts";
import { createRandom, type LoadContext, runLoad } from "./load-child.ts";

/**
 * The only reviewer there is: it approves what waits, each record by one decision, which it repeats under its request id at one
 * instance after the other until it is told what became of it.
 */
export interface ReviewerJob {
  readonly addresses: readonly string[];
  readonly pauseMs: number;
  readonly seed: number;
  readonly patienceMs: number;
}

export interface ReviewerReport {
  readonly reviews: readonly ReviewClaim[];
  readonly problems: readonly string[];
  readonly failures: Readonly<Record<string, number>>;
}

export function isReviewerReport(report: unknown): report is ReviewerReport {
  return typeof report === "object" && report !== null && "reviews" in report;
}

const DEADLINE_MS = 4_000;
const { method } = AuditService;

async function work(job: ReviewerJob, context: LoadContext): Promise<ReviewerReport> {
  const random = createRandom(job.seed * 47);
  const clients = job.addresses.map((address) => createAuditClient(address, { deadlineMs: DEADLINE_MS }));
  const reviews = new Map<string, ReviewClaim>();
  const problems: string[] = [];
  const failures: Record<string, number> = {};
  let giveUpAt = Number.POSITIVE_INFINITY;

  /** Undefined when the call failed in a way that may pass. */
  async function ask<T>(call: (client: AuditClient) => Promise<T>): Promise<T | undefined> {
    const client = clients[random(clients.length)];
    if (client === undefined) throw new Error("nobody to call");
    try {
      return await call(client);
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error;
      const why = `${error.code} ${error.reason}`;
      failures[why] = (failures[why] ?? 0) + 1;
      if (!["UNAVAILABLE", "DEADLINE_EXCEEDED"].includes(error.code)) problems.push(error.message);
      return undefined;
    }
  }

  async function approve(id: string): Promise<void> {
    const requestId = `approve ${id}`;
    reviews.set(id, { id, decided: false });
    while (performance.now() < giveUpAt) {
      if (context.stopping) giveUpAt = Math.min(giveUpAt, performance.now() + job.patienceMs);
      const request = { id, decision: AuditDecision.APPROVE, reviewer: "the reviewer", requestId };
      const reply = await ask((client) => client.review(request));
      if (reply === undefined) {
        await delay(100);
        continue;
      }
      if (!reply.applied || reply.record?.status !== AuditStatus.APPROVED) problems.push(`${id} was not approved`);
      reviews.set(id, { id, decided: true });
      return;
    }
  }

  while (!context.stopping) {
    const page = await ask(async (client) => (await client.call(method.listPending, { pageSize: 5 })).reply.records);
    for (const { id } of page ?? []) {
      if (reviews.has(id)) problems.push(`${id} waits for a review again, though it was decided`);
      else await approve(id);
    }
    await delay(job.pauseMs);
  }
  for (const client of clients) client[Symbol.dispose]();
  return { reviews: [...reviews.values()], problems, failures };
}

if (import.meta.main) await runLoad((job, context) => work(job as ReviewerJob, context));
