import {
  AuditDecision,
  type AuditServiceReviewResponse,
  AuditStatus,
  AuditStatus as Status,
} from "../../gen/holdfast/v1/audit_pb.js";
import { Failure } from "../../infra/failure.ts";
import type { NamedRequest } from "../../infra/named-request.ts";
import { idOf, type RecordId } from "../record/record.ts";

/** What a decision does to a record. */
export interface Transition {
  readonly decision: AuditDecision;
  /** The statuses that it can start from. */
  readonly from: ReadonlySet<AuditStatus>;
  readonly to: AuditStatus;
  /** The action of the record that keeps it. */
  readonly action: string;
}

const transitions: ReadonlyMap<AuditDecision, Transition> = new Map(
  [
    { decision: AuditDecision.APPROVE, from: [Status.PENDING], to: Status.APPROVED, verb: "approve" },
    { decision: AuditDecision.REJECT, from: [Status.PENDING], to: Status.REJECTED, verb: "reject" },
    {
      decision: AuditDecision.REOPEN,
      from: [Status.APPROVED, Status.REJECTED, Status.NOT_REQUIRED],
      to: Status.PENDING,
      verb: "reopen",
    },
  ].map(({ decision, from, to, verb }) => [
    decision,
    { decision, from: new Set(from), to, action: `audit.review.${verb}` },
  ]),
);

/** Undefined for a number that is no decision. */
export function transitionOf(decision: AuditDecision): Transition | undefined {
  return transitions.get(decision);
}

/** A status as people write it: "PENDING". */
export function statusName(status: number): string {
  return AuditStatus[status] ?? String(status);
}

/** What a reviewer asks for. */
export interface ReviewOrder {
  readonly id: RecordId;
  readonly transition: Transition;
  /** It is carried out if the record's status is one of these. */
  readonly expected: ReadonlySet<number>;
  readonly reviewer: string;
  readonly comment: string;
  /** The authenticated caller, whose name for the request `named` is. */
  readonly caller: string;
  readonly named: NamedRequest | undefined;
}

/**
 * Decisions on archived records. A review record ("@review/7") may be reopened and decided on like any other: that keeps a
 * decision about a decision, and changes nothing of what the first one did to its own record.
 */
export interface Reviews {
  /**
   * Changes the status and appends the record of the decision, both or neither, against all other reviews on all instances. Rejects
   * with RecordNotFoundError, RecordRetiredError, or UnavailableError while SQL is away.
   */
  decide(order: ReviewOrder): Promise<AuditServiceReviewResponse>;
}

export class RecordNotFoundError extends Failure {
  constructor(id: RecordId) {
    super("not_found", "RECORD_NOT_FOUND", `there is no audit record ${idOf(id)}`, { metadata: { id: idOf(id) } });
  }
}

export class RecordRetiredError extends Failure {
  constructor(id: RecordId) {
    super(
      "precondition",
      "RECORD_RETIRED",
      `retention has dropped the audit record ${idOf(id)}: it cannot be reviewed`,
      {
        metadata: { id: idOf(id) },
      },
    );
  }
}
