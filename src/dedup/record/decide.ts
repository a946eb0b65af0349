import type { NamedRequest } from "../../infra/named-request.ts";
import { type Claim, type ClaimId, stateOf } from "./claim.ts";

/** The rules of a claim, pure: what the truth does, in one atomic step, with the claim that it keeps. */

export interface ClaimOrder {
  readonly id: ClaimId;
  readonly ttlMs: number;
  readonly leaseMs: number;
  /** Completed as soon as it is made. */
  readonly atOnce: boolean;
  readonly owner: string;
  readonly request: NamedRequest | undefined;
}

export type ClaimDecision =
  /** `claim` is to be kept. */
  | { readonly kind: "first"; readonly claim: Claim }
  /** A retry of the call that made this claim. */
  | { readonly kind: "again"; readonly claim: Claim }
  | { readonly kind: "duplicate"; readonly claim: Claim }
  | { readonly kind: "in_progress"; readonly claim: Claim }
  /** The request id is that of the call that made this claim, which asked for something else. */
  | { readonly kind: "request_reused" };

/** `token` is taken when the caller is the first; it has to be larger than any that was given for the same id. */
export function decideClaim(before: Claim | undefined, order: ClaimOrder, nowMs: number, token: number): ClaimDecision {
  const known = before !== undefined && before.expireMs > nowMs ? before : undefined;
  const state = known && stateOf(known, nowMs);
  if (known === undefined) return { kind: "first", claim: made(order, nowMs, token, 1) };
  if (state !== undefined && isRetry(known, order)) {
    const isSame = known.request?.meaning === order.request?.meaning;
    return isSame ? { kind: "again", claim: known } : { kind: "request_reused" };
  }
  if (state === "completed") return { kind: "duplicate", claim: known };
  if (state === "in_progress") return { kind: "in_progress", claim: known };
  return { kind: "first", claim: made(order, nowMs, token, known.attempt + 1) };
}

/** Once somebody completed the work, who began it is told what all others are. */
function isRetry({ request, status, atOnce }: Claim, order: ClaimOrder): boolean {
  if (request === undefined || request.id !== order.request?.id) return false;
  return status !== "completed" || atOnce;
}

function made(order: ClaimOrder, nowMs: number, token: number, attempt: number): Claim {
  const { id, ttlMs, leaseMs, atOnce, owner, request } = order;
  return {
    ...{ id, token, owner, attempt, ttlMs, request, atOnce },
    status: atOnce ? "completed" : "in_progress",
    claimMs: nowMs,
    leaseEndMs: atOnce ? 0 : nowMs + leaseMs,
    completeMs: atOnce ? nowMs : undefined,
    expireMs: nowMs + (atOnce ? ttlMs : Math.max(ttlMs, leaseMs)),
    resultBytes: undefined,
    copyable: true,
  };
}

export interface CompleteOrder {
  readonly id: ClaimId;
  readonly token: number;
  /** Undefined: as the claim said. */
  readonly ttlMs: number | undefined;
  readonly result: Result | undefined;
}

export interface Result {
  /** A serialized Value. */
  readonly value: Uint8Array;
  /** Of what is in it. */
  readonly bytes: number;
}

export type CompleteDecision =
  /** `claim` is to be kept, with the result. */
  | { readonly kind: "completed"; readonly claim: Claim }
  /** It was completed before, by the same token. */
  | { readonly kind: "again"; readonly claim: Claim }
  /** The claim is another's by now, or there is none. */
  | { readonly kind: "refused"; readonly current: Claim | undefined };

export function decideComplete(before: Claim | undefined, order: CompleteOrder, nowMs: number): CompleteDecision {
  const state = before && stateOf(before, nowMs);
  if (before === undefined || state === undefined) return { kind: "refused", current: undefined };
  if (before.token !== order.token) return { kind: "refused", current: before };
  if (state === "completed") return { kind: "again", claim: before };
  const claim: Claim = {
    ...before,
    status: "completed",
    leaseEndMs: 0,
    completeMs: nowMs,
    expireMs: nowMs + (order.ttlMs ?? before.ttlMs),
    resultBytes: order.result?.bytes,
  };
  return { kind: "completed", claim };
}

export interface ReleaseOrder {
  readonly id: ClaimId;
  readonly token: number;
  readonly forgetCompleted: boolean;
}

export type ReleaseDecision =
  /** `claim` is to be kept: the next one is the first at once, and knows how often the work was begun. */
  | { readonly kind: "released"; readonly claim: Claim }
  /** Nothing is to be kept. */
  | { readonly kind: "forgotten" }
  | { readonly kind: "not_there" };

export function decideRelease(before: Claim | undefined, order: ReleaseOrder, nowMs: number): ReleaseDecision {
  const state = before && stateOf(before, nowMs);
  if (before === undefined || state === undefined || before.token !== order.token) return { kind: "not_there" };
  if (state === "completed") return { kind: order.forgetCompleted ? "forgotten" : "not_there" };
  return { kind: "released", claim: { ...before, status: "released", leaseEndMs: 0 } };
}
