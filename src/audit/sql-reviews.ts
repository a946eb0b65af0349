import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  AuditEntrySchema,
  AuditReviewSchema,
  type AuditServiceReviewResponse,
  AuditServiceReviewResponseSchema,
} from "../gen/holdfast/v1/audit_pb.js";
import type { Clock } from "../infra/clock.ts";
import type { SqlSession } from "../infra/database.ts";
import type { Appender, Archive, Archived } from "./archive.ts";
import { seal, toTimestamp } from "./leaf.ts";
import { idOf, REVIEW_PRODUCER, type RecordId } from "./record.ts";
import { archivedRecord } from "./replies.ts";
import { RecordNotFoundError, RecordRetiredError, type ReviewOrder, type Reviews, statusName } from "./reviews.ts";
import { ARCHIVED_COLUMNS, type ArchivedRow, archivedOf } from "./sql-archive.ts";
import { type RememberedRequest, recallAnswer, rememberAnswer } from "./sql-requests.ts";

export interface SqlReviewsOptions {
  readonly archive: Archive;
  readonly clock: Clock;
}

const SCOPE = "review";

/** Reviews in one transaction each, which holds the head of the log: so there is one at a time among all instances. */
export function createSqlReviews({ archive, clock }: SqlReviewsOptions): Reviews {
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

  return {
    decide: (order) =>
      archive.transaction(async (tx, log) => {
        const { named, caller } = order;
        if (named === undefined) return review(tx, log, order);
        const now = clock.now();
        const request: RememberedRequest = { scope: SCOPE, caller, named };
        const before = await recallAnswer(tx, request, now);
        if (before !== undefined) return fromBinary(AuditServiceReviewResponseSchema, before);
        const answer = await review(tx, log, order);
        await rememberAnswer(tx, request, toBinary(AuditServiceReviewResponseSchema, answer), now);
        return answer;
      }),
  };
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
