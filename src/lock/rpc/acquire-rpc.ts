import { create } from "@bufbuild/protobuf";
import {
  LockOutcome,
  type LockService,
  type LockServiceAcquireRequest,
  LockServiceAcquireResponseSchema,
} from "../../gen/holdfast/v1/lock_pb.js";
import type { CallContext, Rpcs } from "../../infra/call.ts";
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
import { duration, layerOf, lockIfAny, lockOf } from "./replies.ts";

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

export function createAcquireRpc(options: AcquireOptions): Required<Pick<Rpcs<typeof LockService>, "acquire">> {
  const { authority, lines, metrics, clock } = options;

  async function takeTurn(order: TakeOrder, waitMs: number, { signal }: CallContext): Promise<Turn> {
    const turn = await lines.wait({ order, waitMs, signal }).turn;
    if (turn.kind === "acquired" && signal.aborted) {
      // It hung up while the lock was on its way.
      void giveBack(options, order, turn.lease).then(() => lines.ring(order.name));
      throw signal.reason;
    }
    return turn;
  }

  return {
    async acquire(request, call) {
      const order = orderOf(request, call, options);
      const waitMs = waitOf(request, call);
      const begun = clock.monotonic();
      try {
        const turn = await takeTurn({ ...order, waits: waitMs > 0 }, waitMs, call);
        metrics.wanted(turn.kind, clock.monotonic() - begun);
        const { kind } = authority;
        call.servedBy(layerOf(kind));
        if (turn.kind === "held") {
          return create(LockServiceAcquireResponseSchema, {
            outcome: LockOutcome.HELD,
            holder: lockIfAny(turn.holder, kind),
            authority: kind,
          });
        }
        return create(LockServiceAcquireResponseSchema, {
          outcome: LockOutcome.ACQUIRED,
          lock: lockOf(turn.lease, kind),
          validFor: duration(turn.validUntil - clock.monotonic()),
          authority: kind,
        });
      } catch (error) {
        metrics.wanted("failed", clock.monotonic() - begun);
        throw error;
      }
    },
  };
}

function orderOf(
  { name, ttl, waitTimeout, owner, purpose, requestId }: LockServiceAcquireRequest,
  { caller }: CallContext,
  { policyFor, instanceId }: AcquireOptions,
): Omit<TakeOrder, "waits"> {
  const fields = new LockFields();
  fields.name(name);
  const ttlMs = fields.ttl(ttl, LIMITS.ttlMs);
  fields.duration("wait_timeout", waitTimeout, LIMITS.acquireWaitMs, true);
  fields.people(owner, purpose);
  fields.requestId(requestId);
  fields.done();
  return {
    name,
    ttlMs: ttlMs ?? policyFor(name).ttlMs,
    owner: owner || caller.name,
    purpose,
    caller: caller.name,
    instanceId,
    streamId: "",
    // Of this caller: another who happens upon the same id must not be given its lock.
    request: namedRequest(requestId, "Acquire", () => [caller.name, owner, purpose, String(ttlMs ?? "")]),
  };
}

function waitOf({ waitTimeout }: LockServiceAcquireRequest, { deadline }: CallContext): number {
  const asked = new LockFields().duration("wait_timeout", waitTimeout, LIMITS.acquireWaitMs, true) ?? WAIT_MS;
  if (deadline === undefined) return asked;
  const leftMs = Math.max(0, deadline - Date.now());
  return Math.min(asked, leftMs - Math.min(ANSWER_MS, leftMs / 2));
}
