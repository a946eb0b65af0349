import { LockOutcome, type LockService, type LockServiceAcquireRequest } from "../../gen/holdfast/v1/lock_pb.js";
import { type CallContext, EncodedReply, type Rpcs } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import type { Log } from "../../infra/log.ts";
import { namedRequest } from "../../infra/named-request.ts";
import type { Authority } from "../authority/authority.ts";
import type { LockMetrics } from "../metrics.ts";
import type { LockPolicyFor } from "../policies.ts";
import type { TakeOrder } from "../record/decide.ts";
import { giveBack } from "../wait/give-back.ts";
import type { Turn } from "../wait/line.ts";
import type { Lines } from "../wait/lines.ts";
import { LIMITS, LockFields } from "./fields.ts";
import { layerOf } from "./replies.ts";
import { encodeGrant } from "./wire.ts";

export interface AcquireOptions {
  readonly authority: Authority;
  readonly lines: Lines;
  readonly policyFor: LockPolicyFor;
  readonly metrics: LockMetrics;
  readonly instanceId: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** How long a caller waits who does not say. */
const WAIT_MS = 30_000;
/** A wait ends so long before its caller gives up, so that the answer still arrives; or half of it, where there is less. */
const ANSWER_MS = 100;

/** Acquire. Not an async function: it is asked before everything else that callers do. */
export function createAcquireRpc(options: AcquireOptions): Required<Pick<Rpcs<typeof LockService>, "acquire">> {
  const { authority, lines, metrics, clock } = options;

  function replyTo(order: TakeOrder, call: CallContext, begun: number) {
    return (turn: Turn): EncodedReply => {
      if (turn.kind === "acquired" && call.interruption !== undefined) {
        // It hung up while the lock was on its way.
        metrics.wanted("failed", clock.monotonic() - begun);
        void giveBack(options, order, turn.lease).then(() => lines.ring(order.name));
        throw call.interruption;
      }
      const now = clock.monotonic();
      metrics.wanted(turn.kind, now - begun);
      const { kind } = authority;
      call.servedBy(layerOf(kind));
      return new EncodedReply(
        turn.kind === "held"
          ? encodeGrant({
              outcome: LockOutcome.HELD,
              lock: undefined,
              validForMs: undefined,
              holder: turn.holder,
              authority: kind,
            })
          : encodeGrant({
              outcome: LockOutcome.ACQUIRED,
              lock: turn.lease,
              validForMs: turn.validUntil - now,
              holder: undefined,
              authority: kind,
            }),
      );
    };
  }

  return {
    acquire(request, call) {
      const wanted = wantedBy(request, call, options);
      const begun = clock.monotonic();
      const fail = (error: unknown): never => {
        metrics.wanted("failed", clock.monotonic() - begun);
        throw error;
      };
      let turn: Promise<Turn>;
      try {
        ({ turn } = lines.wait({ order: wanted.order, waitMs: wanted.waitMs, caller: call }));
      } catch (error) {
        return fail(error);
      }
      return turn.then(replyTo(wanted.order, call, begun), fail);
    },
  };
}

/** What is wanted, and for how long its caller waits. */
interface Wanted {
  readonly order: TakeOrder;
  readonly waitMs: number;
}

function wantedBy(
  { name, ttl, waitTimeout, owner, purpose, requestId }: LockServiceAcquireRequest,
  { caller, deadline }: CallContext,
  { policyFor, instanceId }: AcquireOptions,
): Wanted {
  const fields = new LockFields();
  fields.name(name);
  const ttlMs = fields.ttl(ttl, LIMITS.ttlMs);
  const waitMs = fields.duration("wait_timeout", waitTimeout, LIMITS.acquireWaitMs, true) ?? WAIT_MS;
  fields.people(owner, purpose);
  fields.requestId(requestId);
  fields.done();
  const leftMs = boundBy(waitMs, deadline);
  return {
    waitMs: leftMs,
    order: {
      name,
      ttlMs: ttlMs ?? policyFor(name).ttlMs,
      owner: owner || caller.name,
      purpose,
      caller: caller.name,
      instanceId,
      streamId: "",
      // Of this caller: another who happens upon the same id must not be given its lock.
      request:
        requestId === ""
          ? undefined
          : namedRequest(requestId, "Acquire", () => [caller.name, owner, purpose, String(ttlMs ?? "")]),
      waits: leftMs > 0,
    },
  };
}

/** Nobody waits for longer than his caller does. */
function boundBy(waitMs: number, deadline: number | undefined): number {
  if (waitMs === 0 || deadline === undefined) return waitMs;
  const leftMs = Math.max(0, deadline - Date.now());
  return Math.min(waitMs, leftMs - Math.min(ANSWER_MS, leftMs / 2));
}
