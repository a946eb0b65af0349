import { create } from "@bufbuild/protobuf";
import {
  type LockAuthority,
  LockLost_Cause,
  type LockServiceHoldResponse,
  LockServiceHoldResponseSchema,
} from "../../gen/holdfast/v1/lock_pb.js";
import type { Lease } from "../authority/authority.ts";
import type { LostCause } from "../metrics.ts";
import { duration, lockIfAny, lockOf, timestamp } from "../rpc/replies.ts";
import type { Kept } from "./keeping.ts";

/** The messages of a Hold. What is left of a lease is reckoned when a message is made, just before it is sent. */
export interface HoldReplies {
  waiting(position: number, holder: Lease | undefined): LockServiceHoldResponse;
  acquired(kept: Kept): LockServiceHoldResponse;
  renewed(kept: Kept): LockServiceHoldResponse;
  lost(cause: LostCause): LockServiceHoldResponse;
  notAcquired(holder: Lease | undefined): LockServiceHoldResponse;
  handover(kept: Kept): LockServiceHoldResponse;
}

const LOSSES: Readonly<Record<LostCause, { readonly cause: LockLost_Cause; readonly message: string }>> = {
  expired: { cause: LockLost_Cause.EXPIRED, message: "the lease ran out before it could be renewed" },
  forced: { cause: LockLost_Cause.FORCED, message: "the lock was taken away by ForceRelease" },
  authority_unavailable: {
    cause: LockLost_Cause.AUTHORITY_UNAVAILABLE,
    message: "who decides about locks did not answer in time to renew the lease",
  },
  taken_over: { cause: LockLost_Cause.TAKEN_OVER, message: "another stream went on with this grant" },
  released: { cause: LockLost_Cause.RELEASED, message: "the lock was released with its token" },
};

export function holdReplies(kind: () => LockAuthority, now: () => number): HoldReplies {
  const reply = (event: LockServiceHoldResponse["event"]) =>
    create(LockServiceHoldResponseSchema, { authority: kind(), event });
  const left = ({ validUntil }: Kept) => duration(validUntil - now());
  return {
    waiting: (position, holder) =>
      reply({
        case: "waiting",
        value: { $typeName: "holdfast.v1.LockWaiting", position, holder: lockIfAny(holder, kind()) },
      }),
    acquired: (kept) =>
      reply({
        case: "acquired",
        value: {
          $typeName: "holdfast.v1.LockAcquired",
          lock: lockOf(kept.lease, kind()),
          validFor: left(kept),
        },
      }),
    renewed: (kept) =>
      reply({
        case: "renewed",
        value: {
          $typeName: "holdfast.v1.LockRenewed",
          expireTime: timestamp(kept.lease.grant.expireMs),
          validFor: left(kept),
          renewals: BigInt(kept.lease.grant.renewals),
        },
      }),
    lost: (cause) => reply({ case: "lost", value: { $typeName: "holdfast.v1.LockLost", ...LOSSES[cause] } }),
    notAcquired: (holder) =>
      reply({
        case: "notAcquired",
        value: { $typeName: "holdfast.v1.LockNotAcquired", holder: lockIfAny(holder, kind()) },
      }),
    handover: (kept) =>
      reply({
        case: "handover",
        value: {
          $typeName: "holdfast.v1.LockHandover",
          resumeToken: BigInt(kept.lease.grant.token),
          validFor: left(kept),
        },
      }),
  };
}
