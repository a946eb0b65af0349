import type { LockService } from "../../gen/holdfast/v1/lock_pb.js";
import { type CallContext, EncodedReply, type Rpcs } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import type { Authority, Released, Renewed } from "../authority/authority.ts";
import type { LockMetrics } from "../metrics.ts";
import type { Notice } from "../notice.ts";
import { validUntilOf } from "../wait/valid-for.ts";
import { LIMITS, LockFields } from "./fields.ts";
import { layerOf } from "./replies.ts";
import { encodeGrant, encodeReleased } from "./wire.ts";

export interface LeaseOptions {
  readonly authority: Authority;
  readonly notice: Notice;
  readonly metrics: LockMetrics;
  readonly clock: Clock;
}

/** Renew and Release: what a holder does with its lease. Not async functions, since each holder calls them. */
export function createLeaseRpcs({
  authority,
  notice,
  metrics,
  clock,
}: LeaseOptions): Required<Pick<Rpcs<typeof LockService>, "renew" | "release">> {
  function renewReply(call: CallContext, asked: number) {
    return (renewed: Renewed): EncodedReply => {
      const { kind } = authority;
      call.servedBy(layerOf(kind));
      if (renewed.kind === "over") {
        const over = { outcome: 0, lock: undefined, validForMs: undefined, holder: renewed.holder, authority: kind };
        return new EncodedReply(encodeGrant(over));
      }
      const { lease } = renewed;
      // Counted from before the authority was asked, so that a caller who counts from the answer is not late either.
      const validForMs = validUntilOf(lease, asked) - clock.monotonic();
      return new EncodedReply(encodeGrant({ outcome: 1, lock: lease, validForMs, holder: undefined, authority: kind }));
    };
  }

  function releaseReply(name: string, call: CallContext) {
    return (released: Released): EncodedReply => {
      if (released.released) notice.freed(name, released);
      const { kind } = authority;
      call.servedBy(layerOf(kind));
      return new EncodedReply(encodeReleased(released.released, kind));
    };
  }

  return {
    renew({ name, fencingToken, ttl }, call) {
      const fields = new LockFields();
      fields.name(name);
      const token = fields.token("fencing_token", fencingToken);
      const ttlMs = fields.ttl(ttl, LIMITS.ttlMs);
      fields.done();
      const asked = clock.monotonic();
      const renewed = authority.renew({ name, token, ttlMs, streamId: undefined, heir: undefined });
      return metrics.renewing(renewed).then(renewReply(call, asked));
    },

    release({ name, fencingToken }, call) {
      const fields = new LockFields();
      fields.name(name);
      const token = fields.token("fencing_token", fencingToken);
      fields.done();
      const order = { name, token, streamId: undefined, end: "released", undo: false, brief: true } as const;
      return metrics.releasing(authority.release(order)).then(releaseReply(name, call));
    },
  };
}
