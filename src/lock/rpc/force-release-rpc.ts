import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { type LockService, LockServiceForceReleaseResponseSchema } from "../../gen/holdfast/v1/lock_pb.js";
import type { CallContext, Rpcs } from "../../infra/call.ts";
import { type NamedRequest, namedRequest } from "../../infra/named-request.ts";
import type { Authority, Lease, Released } from "../authority/authority.ts";
import type { LockMetrics } from "../metrics.ts";
import type { Notice } from "../notice.ts";
import { LIMITS, LockFields, tokenFrom } from "./fields.ts";
import { layerOf, lockIfAny } from "./replies.ts";

/** What is to be kept of a lock that is taken away, before it is. */
export interface ForcedRelease {
  readonly name: string;
  /** The grant that is ended; 0: nobody held the lock. */
  readonly token: number;
  readonly reason: string;
  readonly requestId: string;
  /** The lock as it is held. Undefined: it is not. */
  readonly holder: Lease | undefined;
}

export interface ForceReleaseOptions {
  readonly authority: Authority;
  /** Rejects when it could not be kept. */
  readonly record: (forced: ForcedRelease, call: CallContext) => Promise<void>;
  readonly notice: Notice;
  readonly metrics: LockMetrics;
}

/** A grant that is to be ended, as the first attempt found it. */
interface Target {
  readonly token: number;
  readonly holder: Lease | undefined;
}

interface Order {
  readonly name: string;
  /** 0: whoever holds it. */
  readonly token: number;
  readonly reason: string;
  readonly requestId: string;
}

/** A lock that was taken by another while it was being taken away from its holder is tried again so often. */
const MOST_ROUNDS = 5;

/** ForceRelease: an audit record first, then the lock is taken away. */
export function createForceReleaseRpc(
  options: ForceReleaseOptions,
): Required<Pick<Rpcs<typeof LockService>, "forceRelease">> {
  const { authority, record, notice, metrics } = options;

  async function targetOf({ name, token }: Order): Promise<Target> {
    const { lease } = await authority.look(name);
    return { token: token === 0 ? (lease?.grant.token ?? 0) : token, holder: lease };
  }

  async function release(name: string, { token, holder }: Target): Promise<Released> {
    if (token === 0) return { released: false, lease: holder };
    const released = await metrics.releasing(
      authority.release({ name, token, streamId: undefined, end: "forced", undo: false }),
      true,
    );
    if (released.released) notice.freed(name, released);
    return released;
  }

  async function once(order: Order, call: CallContext): Promise<Released> {
    for (let round = 1; ; round++) {
      const target = await targetOf(order);
      await record({ ...order, ...target }, call);
      const result = await release(order.name, target);
      const isTakenAgain = !result.released && order.token === 0 && result.lease !== undefined;
      if (!isTakenAgain || round === MOST_ROUNDS) return result;
    }
  }

  /** A retry goes on with the grant that the first attempt found, and returns what that returned. */
  async function named(order: Order, request: NamedRequest, call: CallContext): Promise<Released> {
    const { name } = order;
    const mine = JSON.stringify({ ...(await targetOf(order)), attempt: randomUUID() });
    const kept = await authority.remember(name, request, mine);
    const target: Target = JSON.parse(kept);
    await record({ ...order, ...target }, call);
    const result = await release(name, target);
    const released = result.released || (kept !== mine && (await wasForced(name, target.token)));
    const lease = released ? (result.released ? result.lease : target.holder) : result.lease;
    const answer = { ...request, id: `${request.id}${ANSWER}` };
    return JSON.parse(await authority.remember(name, answer, JSON.stringify({ released, lease })));
  }

  /** Whether the first attempt has ended the lease and was gone before it could say so. */
  async function wasForced(name: string, token: number): Promise<boolean> {
    if (token === 0) return false;
    const { lease } = await authority.look(name);
    if (lease?.grant.token === token) return false;
    // Of a grant that is over, a renewal changes nothing and tells how it ended.
    const ended = await authority.renew({ name, token, ttlMs: undefined, streamId: undefined, heir: undefined });
    return ended.kind === "over" && ended.cause === "forced";
  }

  return {
    async forceRelease(request, call) {
      const { name, reason, requestId } = request;
      const fields = new LockFields();
      fields.name(name);
      fields.text("reason", reason, LIMITS.reasonBytes);
      fields.requestId(requestId);
      fields.done();
      const order = { name, reason, requestId, token: tokenFrom(request.fencingToken) };
      const identity = namedRequest(requestId, "ForceRelease", () => [String(request.fencingToken), reason]);
      const result = identity === undefined ? await once(order, call) : await named(order, identity, call);
      const { kind } = authority;
      call.servedBy(layerOf(kind));
      return create(LockServiceForceReleaseResponseSchema, {
        released: result.released,
        lock: lockIfAny(result.lease, kind),
        authority: kind,
      });
    },
  };
}

/** Longer than a request_id may be, together with one: no caller can name an attempt so. */
const ANSWER = `\u0001${"answer".padEnd(128, "-")}`;
