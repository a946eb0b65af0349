import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  AuditEntrySchema,
  AuditReviewSchema,
  type AuditServiceReviewResponse,
  AuditServiceReviewResponseSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { Clock } from "../../infra/clock.ts";
import type { SqlSession } from "../../infra/database.ts";
import { Failure, UnavailableError } from "../../infra/failure.ts";
import type { Appender, Archive, Archived } from "../archive/archive.ts";
import { ARCHIVED_COLUMNS, type ArchivedRow, archivedOf } from "../archive/sql-archive.ts";
import { type RememberedRequest, recallAnswer, rememberAnswer } from "../archive/sql-requests.ts";
import { seal, toTimestamp } from "../record/leaf.ts";
import { idOf, REVIEW_PRODUCER, type RecordId } from "../record/record.ts";
import { archivedRecord } from "../record/replies.ts";
import { RecordNotFoundError, RecordRetiredError, type ReviewOrder, type Reviews, statusName } from "./reviews.ts";

export interface SqlReviewsOptions {
  readonly archive: Archive;
  readonly clock: Clock;
}

interface Job {
  readonly order: ReviewOrder;
  resolve(answer: AuditServiceReviewResponse): void;
  reject(error: unknown): void;
}

const SCOPE = "review";
const COMMIT_REVIEWS = 100;

/** Reviews in transactions that hold the head of the log: so there is one at a time among all instances. */
export function createSqlReviews({ archive, clock }: SqlReviewsOptions): Reviews {
  const waiting: Job[] = [];
  let isDraining = false;
  const lock = archive.kind === "postgres" ? " FOR UPDATE" : "";
  const select = `SELECT ${ARCHIVED_COLUMNS} FROM audit_record WHERE producer = $1 AND sequence = $2${lock}`;

  async function read(tx: SqlSession, id: RecordId): Promise<Archived & { readonly leaf: Uint8Array }> {
    const [row] = await tx.query<ArchivedRow>(select, [id.producer, id.sequence]);
    if (row === undefined) throw new RecordNotFoundError(id);
    const { leaf } = row;
    if (leaf === null) throw new RecordRetiredError(id);
    return { ...archivedOf(row), leaf };
  }

  async function review(tx: SqlSession, log: Appender, order: ReviewOrder): Promise<AuditServiceReviewResponse> {
    const found = await read(tx, order.id);
    if (!order.expected.has(found.status)) {
      return create(AuditServiceReviewResponseSchema, { applied: false, record: archivedRecord(found) });
    }
    const record: RecordId = { producer: REVIEW_PRODUCER, sequence: await log.nextSequence(REVIEW_PRODUCER) };
    const { transition, reviewer, comment } = order;
    const nowUs = Math.floor(clock.now()) * 1000;
    const [placed] = await log.append([seal(record, nowUs, entryOf(order, found.status))]);
    if (placed?.outcome !== "appended") throw new Error(`the review ${idOf(record)} could not be appended`);
    const kept = toBinary(
      AuditReviewSchema,
      create(AuditReviewSchema, {
        decision: transition.decision,
        reviewer,
        comment,
        reviewTime: toTimestamp(nowUs),
        recordId: idOf(record),
      }),
    );
    await tx.query("UPDATE audit_record SET status = $1, review = $2 WHERE leaf_index = $3", [
      transition.to,
      kept,
      found.leafIndex,
    ]);
    const now = archivedRecord({ ...found, status: transition.to, review: kept });
    return create(AuditServiceReviewResponseSchema, { applied: true, record: now });
  }

  async function once(tx: SqlSession, log: Appender, order: ReviewOrder): Promise<AuditServiceReviewResponse> {
    const { named, caller } = order;
    if (named === undefined) return review(tx, log, order);
    const now = clock.now();
    const request: RememberedRequest = { scope: SCOPE, caller, named };
    const before = await recallAnswer(tx, request, now);
    if (before !== undefined) return fromBinary(AuditServiceReviewResponseSchema, before);
    const answer = await review(tx, log, order);
    await rememberAnswer(tx, request, toBinary(AuditServiceReviewResponseSchema, answer), now);
    return answer;
  }

  /** Those who call at the same time share a commit: each waits for the disk, or a network, but once. */
  async function decideAll(jobs: readonly Job[]): Promise<void> {
    try {
      const answers = await archive.transaction(async (tx, log) => {
        const made: (AuditServiceReviewResponse | Failure)[] = [];
        for (const { order } of jobs) made.push(await once(tx, log, order).catch(refusal));
        return made;
      });
      for (const [at, { resolve, reject }] of jobs.entries()) {
        const answer = answers[at];
        if (answer === undefined || answer instanceof Failure) reject(answer);
        else resolve(answer);
      }
    } catch (error) {
      if (jobs.length === 1 || error instanceof UnavailableError) {
        for (const { reject } of jobs) reject(error);
      } else {
        // One of them may be what the database refuses; the others must not fail with it.
        for (const job of jobs) await decideAll([job]);
      }
    }
  }

  async function drain(): Promise<void> {
    while (waiting.length > 0) await decideAll(waiting.splice(0, COMMIT_REVIEWS));
    isDraining = false;
  }

  return {
    decide: (order) =>
      new Promise((resolve, reject) => {
        waiting.push({ order, resolve, reject });
        if (isDraining) return;
        isDraining = true;
        // After this turn, so that whoever else calls in it shares the commit.
        queueMicrotask(() => void drain());
      }),
  };
}

/** What is no fault of the database leaves the transaction as it was, for the others to go on. */
function refusal(error: unknown): Failure {
  if (error instanceof Failure && !(error instanceof UnavailableError)) return error;
  throw error;
}

/** What the log says of a decision. */
function entryOf({ id, transition, reviewer, comment }: ReviewOrder, before: number) {
  return create(AuditEntrySchema, {
    actor: reviewer,
    action: transition.action,
    resource: { type: "audit_record", id: idOf(id) },
    before: { status: statusName(before) },
    after: { status: statusName(transition.to) },
    attributes: { comment },
  });
}
