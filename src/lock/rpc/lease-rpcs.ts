import { create } from "@bufbuild/protobuf";
import {
  type LockService,
  LockServiceReleaseResponseSchema,
  LockServiceRenewResponseSchema,
} from "../../gen/holdfast/v1/lock_pb.js";
import type { Rpcs } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import type { Authority } from "../authority/authority.ts";
import type { LockMetrics } from "../metrics.ts";
import type { Notice } from "../notice.ts";
import { clockMargin } from "../wait/valid-for.ts";
import { LIMITS, LockFields } from "./fields.ts";
import { duration, layerOf, lockIfAny, lockOf } from "./replies.ts";

export interface LeaseOptions {
  readonly authority: Authority;
  readonly notice: Notice;
  readonly metrics: LockMetrics;
  readonly clock: Clock;
}

/** Renew and Release: what a holder does with its lease. */
export function createLeaseRpcs({
  authority,
  notice,
  metrics,
  clock,
}: LeaseOptions): Required<Pick<Rpcs<typeof LockService>, "renew" | "release">> {
  return {
    async renew({ name, fencingToken, ttl }, call) {
      const fields = new LockFields();
      fields.name(name);
      const token = fields.token("fencing_token", fencingToken);
      const ttlMs = fields.ttl(ttl, LIMITS.ttlMs);
      fields.done();
      const asked = clock.monotonic();
      const renewed = await metrics.renewing(
        authority.renew({ name, token, ttlMs, streamId: undefined, heir: undefined }),
      );
      const { kind } = authority;
      call.servedBy(layerOf(kind));
      if (renewed.kind === "over") {
        const holder = lockIfAny(renewed.holder, kind);
        return create(LockServiceRenewResponseSchema, { renewed: false, holder, authority: kind });
      }
      const { remainingMs } = renewed.lease;
      // Counted from before the authority was asked, so that a caller who counts from the answer is not late either.
      const validUntil = asked + remainingMs - clockMargin(remainingMs);
      return create(LockServiceRenewResponseSchema, {
        renewed: true,
        lock: lockOf(renewed.lease, kind),
        validFor: duration(validUntil - clock.monotonic()),
        authority: kind,
      });
    },

    async release({ name, fencingToken }, call) {
      const fields = new LockFields();
      fields.name(name);
      const token = fields.token("fencing_token", fencingToken);
      fields.done();
      const { released, lease } = await metrics.releasing(
        authority.release({ name, token, streamId: undefined, end: "released", undo: false }),
      );
      if (released) notice.freed(name, lease);
      const { kind } = authority;
      call.servedBy(layerOf(kind));
      return create(LockServiceReleaseResponseSchema, { released, authority: kind });
    },
  };
}
