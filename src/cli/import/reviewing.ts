import { type AuditIngestAck, AuditStatus } from "../../gen/holdfast/v1/audit_pb.js";
import { type Api, ApiError } from "../client/api.ts";
import type { Patience } from "../client/patience.ts";
import type { Account } from "./account.ts";
import type { Batch, Prepared } from "./delivery.ts";

export interface ReviewingOptions {
  readonly api: Api;
  readonly producer: string;
  readonly patience: Patience;
  readonly account: Account;
}

/** Reviews wait for the archive; together they wait once. */
const AT_ONCE = 64;
const UNREVIEWABLE: readonly string[] = ["INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "RESOURCE_EXHAUSTED"];

/** Carries out on the imported records what had been decided on them before. */
export async function reviewBatch(options: ReviewingOptions, batch: Batch, ack: AuditIngestAck): Promise<void> {
  // A record that changed in its source since it was imported is refused, but it is still the one that was decided on.
  const unheld = ack.refusals.filter(({ error }) => error?.reason !== "IDENTITY_REUSED").map(({ index }) => index);
  const skipped = new Set(unheld);
  const mayBeReviewed = ack.duplicates > 0 || ack.refusals.length > 0;
  const waiting = batch.filter(({ review }, index) => review !== undefined && !skipped.has(index));
  const workers = Array.from({ length: Math.min(AT_ONCE, waiting.length) }, async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      await reviewOne(options, next, mayBeReviewed);
    }
  });
  await Promise.all(workers);
}

async function reviewOne(
  { api, producer, patience, account }: ReviewingOptions,
  { row, review }: Prepared,
  mayBeReviewed: boolean,
): Promise<void> {
  if (review === undefined) return;
  const id = `${producer}/${row.sequence}`;
  try {
    const before = mayBeReviewed ? await patience.until(() => api.get(id)) : undefined;
    // Whoever decided on it since, if only to reopen it, knew more than the source does.
    const isDecided = before !== undefined && (before.review !== undefined || before.status !== AuditStatus.PENDING);
    const isApplied =
      !isDecided &&
      (await patience.until(() => api.review({ id, ...review, expectedStatus: AuditStatus.PENDING }))).applied;
    if (isApplied) account.reviewed++;
    else account.alreadyReviewed++;
  } catch (error) {
    if (!(error instanceof ApiError) || !UNREVIEWABLE.includes(error.code)) throw error;
    account.refuse({ row, reason: error.reason, message: `the record is there, but not its review: ${error.message}` });
  }
}
