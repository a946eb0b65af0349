import type { LockServiceHoldRequest } from "../../gen/holdfast/v1/lock_pb.js";
import type { CallContext } from "../../infra/call.ts";
import type { LockPolicyFor } from "../policies.ts";
import type { TakeOrder } from "../record/decide.ts";
import { LIMITS, LockFields, tokenFrom } from "../rpc/fields.ts";

/** What a Hold orders, checked. */
export interface HoldOrder {
  readonly take: TakeOrder;
  /** Undefined: for as long as the stream lives. */
  readonly waitMs: number | undefined;
  /** Undefined: to take the lock anew. */
  readonly resume: { readonly token: number; readonly ttlMs: number | undefined } | undefined;
}

export interface HoldOrderParts {
  readonly policyFor: LockPolicyFor;
  readonly instanceId: string;
  readonly streamId: string;
}

export function holdOrderOf(
  { name, ttl, waitTimeout, owner, purpose, resumeToken }: LockServiceHoldRequest,
  { caller }: CallContext,
  { policyFor, instanceId, streamId }: HoldOrderParts,
): HoldOrder {
  const fields = new LockFields();
  fields.name(name);
  const ttlMs = fields.ttl(ttl, LIMITS.holdTtlMs);
  const waitMs = fields.duration("wait_timeout", waitTimeout, LIMITS.holdWaitMs, true);
  fields.people(owner, purpose);
  fields.done();
  return {
    take: {
      ...{ name, purpose, instanceId, streamId, request: undefined },
      ttlMs: ttlMs ?? keptFor(policyFor(name).ttlMs),
      owner: owner || caller.name,
      caller: caller.name,
      waits: waitMs !== 0,
    },
    waitMs,
    resume: resumeToken === 0n ? undefined : { token: tokenFrom(resumeToken), ttlMs },
  };
}

/** A lease that is kept by a stream lasts at least so long: it has to be renewed in time. */
export function keptFor(ttlMs: number): number {
  return Math.max(ttlMs, LIMITS.holdTtlMs.least);
}
