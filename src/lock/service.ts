import { LockService } from "../gen/holdfast/v1/lock_pb.js";
import { type Mounted, mount, type Rpcs } from "../infra/call.ts";
import { LIMITS } from "./rpc/fields.ts";
import { decodeAcquire, decodeRelease, decodeRenew } from "./rpc/wire.ts";

/** For the answer, after the longest wait. */
const ANSWER_MS = 60_000;

/** LockService, of the parts that serve some of its RPCs each. */
export function createLockService(parts: readonly Rpcs<typeof LockService>[]): Mounted {
  const rpcs: Rpcs<typeof LockService> = Object.assign({}, ...parts);
  const decoders = { acquire: decodeAcquire, renew: decodeRenew, release: decodeRelease };
  return { ...mount(LockService, rpcs, decoders), longestMs: { acquire: LIMITS.acquireWaitMs + ANSWER_MS } };
}
