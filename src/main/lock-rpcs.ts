import { createHoldRpc, type HoldOptions } from "../lock/hold/hold-rpc.ts";
import { createAcquireRpc } from "../lock/rpc/acquire-rpc.ts";
import { createForceReleaseRpc, type ForceReleaseOptions } from "../lock/rpc/force-release-rpc.ts";
import { createLeaseRpcs } from "../lock/rpc/lease-rpcs.ts";
import { createReadRpcs } from "../lock/rpc/read-rpcs.ts";

/** The RPCs of LockService. */
export function createLockRpcs(parts: HoldOptions & Pick<ForceReleaseOptions, "record">) {
  return {
    ...createAcquireRpc(parts),
    ...createLeaseRpcs(parts),
    ...createHoldRpc(parts),
    ...createReadRpcs(parts),
    ...createForceReleaseRpc(parts),
  };
}
