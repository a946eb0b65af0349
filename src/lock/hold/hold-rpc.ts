import { randomUUID } from "node:crypto";
import type { LockService, LockServiceHoldResponse } from "../../gen/holdfast/v1/lock_pb.js";
import type { CallContext, Rpcs } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { systemTimer, type Timer } from "../../infra/timer.ts";
import type { Authority, Renewed } from "../authority/authority.ts";
import type { LockMetrics } from "../metrics.ts";
import type { Notice } from "../notice.ts";
import type { LockPolicyFor } from "../policies.ts";
import { layerOf } from "../rpc/replies.ts";
import { giveBack } from "../wait/give-back.ts";
import type { Turn } from "../wait/line.ts";
import type { Lines } from "../wait/lines.ts";
import { callerOf, type Place } from "../wait/visitor.ts";
import { type HoldOrder, holdOrderOf, keptFor } from "./hold-order.ts";
import { Keeping, type Kept, keptFrom } from "./keeping.ts";
import { drainingFailure, type Keepings } from "./keepings.ts";
import { holdReplies } from "./replies.ts";

export interface HoldOptions {
  readonly authority: Authority;
  readonly lines: Lines;
  readonly keepings: Keepings;
  readonly notice: Notice;
  readonly policyFor: LockPolicyFor;
  readonly metrics: LockMetrics;
  readonly instanceId: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly timer?: Timer;
}

/** Who waits hears of it so often; the contract promises every 15 seconds. */
const WAITING_MS = 10_000;

/** Hold: takes a lock, keeps it while the stream lives, and gives it back. */
export function createHoldRpc(options: HoldOptions): Required<Pick<Rpcs<typeof LockService>, "hold">> {
  const { authority, lines, keepings, notice, policyFor, metrics, instanceId, clock, log } = options;
  const timer = options.timer ?? systemTimer;
  const replies = holdReplies(
    () => authority.kind,
    () => clock.monotonic(),
  );

  /** Until the turn has come, tells how the wait goes. */
  async function* wait(place: Place, waits: boolean): AsyncGenerator<LockServiceHoldResponse, Turn> {
    if (!waits) return place.turn;
    const turn = place.turn.then((value) => ({ turn: value }));
    const first = await Promise.race([turn, place.queued]);
    if (first !== undefined) return first.turn;
    for (;;) {
      yield replies.waiting(place.position(), place.holder());
      let cancel: (() => void) | undefined;
      const pause = new Promise<undefined>((resolve) => {
        cancel = timer(() => resolve(undefined), WAITING_MS);
      });
      const next = await Promise.race([turn, pause]).finally(() => cancel?.());
      if (next !== undefined) return next.turn;
    }
  }

  async function* take({ take: order, waitMs }: HoldOrder, call: CallContext) {
    const begun = clock.monotonic();
    let outcome: "acquired" | "held" | "failed" = "failed";
    const leaving = new AbortController();
    const leave = () => leaving.abort(call.signal.reason);
    call.signal.addEventListener("abort", leave, { once: true });
    let place: Place | undefined;
    let turn: Turn | undefined;
    try {
      call.signal.throwIfAborted();
      place = lines.wait({ order, waitMs, caller: callerOf(leaving.signal) });
      turn = yield* wait(place, order.waits);
      outcome = turn.kind;
      return turn;
    } finally {
      call.signal.removeEventListener("abort", leave);
      metrics.wanted(outcome, clock.monotonic() - begun);
      // The stream was closed while it waited, perhaps with the lock on its way.
      if (turn === undefined && place !== undefined) {
        leaving.abort(new Error("the stream is over"));
        place.turn.then(
          async (late) => {
            if (late.kind !== "acquired") return;
            await giveBack(options, order, late.lease);
            lines.ring(order.name);
          },
          // That is how those end who have left.
          () => undefined,
        );
      }
    }
  }

  async function resume(
    { take: { name, streamId } }: HoldOrder,
    { token, ttlMs }: NonNullable<HoldOrder["resume"]>,
  ): Promise<Exclude<Renewed, { kind: "renewed" }> | { readonly kind: "kept"; readonly kept: Kept }> {
    const asked = clock.monotonic();
    const renewed = await authority.renew({ name, token, ttlMs, streamId: undefined, heir: { streamId, instanceId } });
    if (renewed.kind === "over") return renewed;
    notice.inherited(name);
    return { kind: "kept", kept: keptFrom(renewed.lease, asked) };
  }

  async function* keep(kept: Kept, ttlMs: number, streamId: string, { signal }: CallContext) {
    const keeping = new Keeping({ authority, metrics, clock, timer, log, onReleased: lines.ring }, kept, {
      streamId,
      ttlMs,
    });
    keepings.add(keeping);
    if (keepings.isDraining) void keeping.handOver();
    try {
      yield replies.acquired(kept);
      for (;;) {
        const told = await keeping.news.take(signal);
        if ("news" in told) {
          yield replies.renewed(told.news);
          continue;
        }
        if (told.last.kind === "lost") {
          yield replies.lost(told.last.cause);
          return;
        }
        yield replies.handover(told.last.kept);
        throw drainingFailure();
      }
    } finally {
      // A drain that could not hand over leaves the lease to be resumed all the same.
      const isDrained = signal.aborted && signal.reason instanceof UnavailableError;
      keepings.remove(keeping, !isDrained);
    }
  }

  return {
    async *hold(request, call) {
      const streamId = randomUUID();
      const order = holdOrderOf(request, call, { policyFor, instanceId, streamId });
      if (keepings.isDraining) throw drainingFailure();
      if (order.resume !== undefined) {
        const resumed = await resume(order, order.resume);
        call.servedBy(layerOf(authority.kind));
        if (resumed.kind === "over") {
          metrics.lost(resumed.cause);
          yield replies.lost(resumed.cause);
          return;
        }
        const ttlMs = keptFor(order.resume.ttlMs ?? resumed.kept.lease.grant.ttlMs);
        yield* keep(resumed.kept, ttlMs, streamId, call);
        return;
      }
      const turn = yield* take(order, call);
      call.servedBy(layerOf(authority.kind));
      if (turn.kind === "held") {
        yield replies.notAcquired(turn.holder);
        return;
      }
      yield* keep(turn, order.take.ttlMs, streamId, call);
    },
  };
}
