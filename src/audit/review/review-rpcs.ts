import { create, fromBinary } from "@bufbuild/protobuf";
import {
  AuditFilterSchema,
  AuditReviewSchema,
  type AuditService,
  type AuditServiceIsApprovedRequest,
  type AuditServiceIsApprovedResponse,
  AuditServiceIsApprovedResponseSchema,
  type AuditServiceReviewRequest,
  AuditStatus,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { CallContext, Rpcs } from "../../infra/call.ts";
import { UnavailableError } from "../../infra/failure.ts";
import { Fields } from "../../infra/fields.ts";
import { namedRequest } from "../../infra/named-request.ts";
import type { Archive, Archived } from "../archive/archive.ts";
import type { Settled } from "../intake/settled.ts";
import { LIMITS } from "../record/entry.ts";
import { idOf } from "../record/record.ts";
import { recordIdOf } from "../record/record-id.ts";
import { type Filter, filterOf } from "../search/filter.ts";
import type { Position, Search } from "../search/search.ts";
import { RecordNotFoundError, type ReviewOrder, type Reviews, statusName, transitionOf } from "./reviews.ts";

export interface ReviewRpcsOptions {
  readonly archive: Archive;
  readonly reviews: Reviews;
  readonly search: Search;
  readonly settled: Settled;
}

const COMMENT_BYTES = 8 * 1024;
/** A record of these was, or is to be, reviewed. */
const REVIEWABLE = [AuditStatus.PENDING, AuditStatus.APPROVED, AuditStatus.REJECTED];

function notSeenYet(cause?: unknown): UnavailableError {
  const message = "Redis is away, and what other instances had queued in it may not be in the archive yet";
  return new UnavailableError("REDIS_UNAVAILABLE", message, { cause });
}

/** The RPCs of the review: deciding, and asking what was decided. */
export function createReviewRpcs({
  archive,
  reviews,
  search,
  settled,
}: ReviewRpcsOptions): Required<Pick<Rpcs<typeof AuditService>, "review" | "isApproved">> {
  /** Whether a record that another instance queued a moment ago may not be seen, because Redis is away; the reply says so. */
  async function settle(call: CallContext): Promise<boolean> {
    const { degraded } = await settled(call.signal);
    if (degraded) call.degraded();
    return degraded;
  }

  return {
    async review(request, call) {
      const order = orderOf(request, call);
      const maySeeLess = await settle(call);
      const answer = await reviews.decide(order).catch((error: unknown) => {
        throw maySeeLess && error instanceof RecordNotFoundError ? notSeenYet(error) : error;
      });
      call.servedBy(archive.kind);
      return answer;
    },

    async isApproved({ target }, call) {
      const find = questionOf(target);
      const maySeeLess = await settle(call);
      const row = await find(call.signal);
      // A newer record may have withdrawn the approval of a resource. That of a record can only change in SQL.
      if (maySeeLess && target.case === "subject" && row?.status === AuditStatus.APPROVED) throw notSeenYet();
      call.servedBy(archive.kind);
      return approvalOf(row);
    },
  };

  function questionOf(
    target: AuditServiceIsApprovedRequest["target"],
  ): (signal: AbortSignal) => Promise<Archived | undefined> {
    const fields = new Fields();
    switch (target.case) {
      case "id": {
        const id = recordIdOf(fields, "id", target.value);
        fields.done();
        return async () => (await archive.find([id]))[0];
      }
      case "subject": {
        const { resource, action } = target.value;
        fields.text("subject.resource.type", resource?.type ?? "", LIMITS.resourceTypeBytes);
        fields.text("subject.resource.id", resource?.id ?? "", LIMITS.resourceIdBytes);
        fields.text("subject.action", action, LIMITS.actionBytes, true);
        fields.done();
        const filter = filterOf(
          fields,
          "subject",
          create(AuditFilterSchema, {
            resourceType: resource?.type ?? "",
            resourceId: resource?.id ?? "",
            statuses: REVIEWABLE,
          }),
        );
        // An action that ends in "*" is meant as it is written, where a filter would take it for a beginning.
        const exactly = action === "" ? filter : { ...filter, actions: new Set([action]) };
        return (signal) => newest(search, exactly, signal);
      }
      default:
        fields.refuse("target", "is required: set id or subject");
        fields.done();
        throw new Error("a target that is missing was not refused");
    }
  }
}

function orderOf(request: AuditServiceReviewRequest, { caller }: CallContext): ReviewOrder {
  const fields = new Fields();
  const { decision, reviewer, comment, expectedStatus } = request;
  const id = recordIdOf(fields, "id", request.id);
  const transition = transitionOf(decision);
  if (transition === undefined) fields.refuse("decision", "must be APPROVE, REJECT or REOPEN");
  fields.text("reviewer", reviewer, LIMITS.actorBytes);
  fields.text("comment", comment, COMMENT_BYTES, true);
  const isAny = expectedStatus === AuditStatus.UNSPECIFIED;
  if (transition !== undefined && !isAny && !transition.from.has(expectedStatus)) {
    const possible = [...transition.from].map(statusName).join(" or ");
    fields.refuse("expected_status", `must be ${possible} for this decision, or unset`);
  }
  const requestId = fields.requestId(request.requestId);
  fields.done();
  if (transition === undefined) throw new Error("a decision that is none was not refused");
  return {
    id,
    transition,
    expected: isAny ? transition.from : new Set([expectedStatus]),
    reviewer,
    comment,
    caller: caller.name,
    named: namedRequest(requestId, "Review", () => [
      idOf(id),
      String(decision),
      reviewer,
      comment,
      String(expectedStatus),
    ]),
  };
}

async function newest(search: Search, filter: Filter, signal: AbortSignal): Promise<Archived | undefined> {
  for (let after: Position | undefined; ; ) {
    signal.throwIfAborted();
    const { rows, next } = await search.page({ filter, order: "newest", limit: 1, after });
    if (rows[0] !== undefined || next === undefined) return rows[0];
    after = next;
  }
}

function approvalOf(row: Archived | undefined): AuditServiceIsApprovedResponse {
  if (row === undefined) return create(AuditServiceIsApprovedResponseSchema);
  return create(AuditServiceIsApprovedResponseSchema, {
    approved: row.status === AuditStatus.APPROVED,
    status: row.status,
    recordId: idOf(row),
    ...(row.review !== null && { review: fromBinary(AuditReviewSchema, row.review) }),
  });
}
