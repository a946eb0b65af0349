import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Lock, LockAuthority, LockSchema } from "../../gen/holdfast/v1/lock_pb.js";
import type { ServedBy } from "../../infra/call.ts";
import type { Lease } from "../authority/authority.ts";

/** How locks are told to callers. */

export function lockOf({ grant }: Lease, authority: LockAuthority): Lock {
  return create(LockSchema, {
    name: grant.name,
    fencingToken: BigInt(grant.token),
    owner: grant.owner,
    purpose: grant.purpose,
    caller: grant.caller,
    acquireTime: timestamp(grant.acquireMs),
    expireTime: timestamp(grant.expireMs),
    renewals: BigInt(grant.renewals),
    authority,
    instanceId: grant.instanceId,
  });
}

/** As a field that may be unset. */
export function lockIfAny(lease: Lease | undefined, authority: LockAuthority): Lock | undefined {
  return lease && lockOf(lease, authority);
}

export function timestamp(ms: number): Timestamp {
  return timestampFromMs(Math.floor(ms));
}

/** Never more than there is: fractions of a millisecond are cut off. */
export function duration(ms: number): Duration {
  const whole = Math.max(0, Math.floor(ms));
  return create(DurationSchema, { seconds: BigInt(Math.floor(whole / 1000)), nanos: (whole % 1000) * 1_000_000 });
}

export function layerOf(authority: LockAuthority): ServedBy {
  if (authority === LockAuthority.SQLITE) return "sqlite";
  return authority === LockAuthority.POSTGRES ? "postgres" : "redis";
}
