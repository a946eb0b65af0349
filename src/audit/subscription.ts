import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import {
  AuditDeliverySchema,
  type AuditServiceSubscribeRequest,
  type AuditServiceSubscribeResponse,
  AuditServiceSubscribeResponseSchema,
} from "../gen/holdfast/v1/audit_pb.js";
import type { CallContext } from "../infra/call.ts";
import type { Clock } from "../infra/clock.ts";
import type { Log } from "../infra/log.ts";
import { createBell } from "./bell.ts";
import { type DeliveryRef, deliveryId } from "./deliveries.ts";
import { type Claimed, ConsumerReplacedError, type Groups, type Member } from "./groups.ts";
import type { Growth } from "./growth.ts";
import { toTimestamp } from "./leaf.ts";
import { createHeld } from "./subscription-held.ts";
import { type SettleOrder, settleOrderOf, subscriptionOf } from "./subscription-orders.ts";
import { createSettler } from "./subscription-settler.ts";
import { createSource } from "./subscription-source.ts";
import { isTransient } from "./transient.ts";

export interface SubscribeOptions {
  readonly groups: Groups;
  readonly growth: Growth;
  /** Resolves when everything that was acknowledged before is archived. */
  readonly settled: (signal: AbortSignal) => Promise<void>;
  /** The streams of this instance by consumer, so that one is told at once when another takes its name. */
  readonly streams: Map<string, (replaced: ConsumerReplacedError) => void>;
  readonly clock: Clock;
  readonly instanceId: string;
  readonly log: Log;
}

/** How often a stream says that it is open. */
const TOUCH_MS = 5_000;
/** How often, and how long after each other, it is tried to give back what a stream held; else it waits for its deadlines. */
const LEAVES = 5;
const LEAVE_AGAIN_MS = 300;

type Incoming = AsyncIterator<AuditServiceSubscribeRequest>;
type Reply = Exclude<AuditServiceSubscribeResponse["message"], { case: undefined }>;

/** One consumer's stream, from its first message to its last. */
export async function* subscribe(
  requests: AsyncIterable<AuditServiceSubscribeRequest>,
  call: CallContext,
  options: SubscribeOptions,
): AsyncGenerator<AuditServiceSubscribeResponse> {
  const { groups, growth, streams, clock, instanceId, log } = options;
  const { signal } = call;
  const incoming: Incoming = requests[Symbol.asyncIterator]();
  const first = await incoming.next();
  if (first.done === true) return;
  const subscription = subscriptionOf(first.value);
  const { join: member, ackTimeoutMs } = subscription;
  // What was acknowledged before a group is made is not new to it.
  if (!(await groups.exists(member.group))) await options.settled(signal);
  const { created, filter } = await groups.join(member);

  const bell = createBell();
  const held = createHeld();
  const source = createSource({ groups, member, filter, subscription, held, clock, bell, log });
  const settler = createSettler({ perform, bell });
  let activeMs: number | undefined;
  // Why the consumer sends no more: it said so (then without an error), or is gone, or has to go.
  let ending: { readonly error?: unknown } | undefined;
  let replaced: ConsumerReplacedError | undefined;

  async function perform(orders: readonly SettleOrder[]): Promise<readonly DeliveryRef[]> {
    const refs = orders.flatMap((order) => order.refs);
    const action = orders[0]?.action;
    if (refs.length === 0 || action === undefined) return [];
    activeMs = clock.now();
    if (action.kind === "extend") {
      const deadlineMs = clock.now() + ackTimeoutMs;
      const extended = await groups.extend(member, refs, deadlineMs);
      held.extend(extended, deadlineMs);
      return extended;
    }
    const isAck = action.kind === "ack";
    const done = await (isAck ? groups.ack(member.group, refs) : groups.nack(member.group, refs, action));
    // Late ones as well: they are with somebody else, or with nobody.
    held.settle(refs);
    if (!isAck) stir(growth);
    return done;
  }

  async function read(): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await incoming.next();
        if (done === true) break;
        await settler.add(settleOrderOf(value));
      }
      end({});
    } catch (error) {
      end({ error });
    }
  }

  function end(how: { readonly error?: unknown }): void {
    ending ??= how;
    bell.ring();
  }

  function onAbort(): void {
    end({ error: signal.reason });
    // Nobody waits any longer for what SQL does not take now.
    void settler.finish();
  }

  const name = JSON.stringify([member.group, member.consumer]);
  const onReplaced = (error: ConsumerReplacedError) => {
    replaced = error;
    bell.ring();
  };
  streams.get(name)?.(new ConsumerReplacedError(member));
  streams.set(name, onReplaced);
  // A stream of another instance that had the name learns it by looking.
  stir(growth);
  const forgetGrowth = growth.onGrown(() => source.onGrown());
  const touching = setInterval(() => {
    groups.touch(member, activeMs).catch((err: unknown) => log.debug({ err, ...member }, "a consumer was not seen"));
  }, TOUCH_MS).unref();
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  void read();

  try {
    const { group, consumer } = member;
    yield reply({ case: "opened", value: opened({ instanceId, group, consumer, created }) });
    // A little early, because timers are late.
    const beatMs = subscription.heartbeatMs * 0.9;
    let beatAt = performance.now() + beatMs;
    for (;;) {
      const failure = replaced ?? settler.failure ?? source.failure;
      if (failure !== undefined) throw failure;
      const settled = settler.take();
      if (settled !== undefined) {
        yield reply({ case: "settled", value: settled });
        beatAt = performance.now() + beatMs;
        continue;
      }
      if (ending !== undefined && settler.idle) {
        if (ending.error !== undefined) throw ending.error;
        return;
      }
      if (ending === undefined) {
        const claimed = source.take();
        if (claimed !== undefined) {
          activeMs = clock.now();
          yield deliveriesOf(claimed);
          beatAt = performance.now() + beatMs;
          continue;
        }
        source.pull();
      }
      if (performance.now() >= beatAt) {
        yield reply({ case: "heartbeat", value: { $typeName: "holdfast.v1.AuditHeartbeat", resumeToken: "" } });
        beatAt = performance.now() + beatMs;
        continue;
      }
      const wakeAt = ending === undefined ? Math.min(beatAt, source.nextPull) : beatAt;
      await bell.wait(wakeAt - performance.now());
    }
  } finally {
    signal.removeEventListener("abort", onAbort);
    clearInterval(touching);
    forgetGrowth();
    if (streams.get(name) === onReplaced) streams.delete(name);
    await settler.finish();
    const unsent = await source.close();
    const isReplaced = (replaced ?? source.failure) instanceof ConsumerReplacedError;
    // What a replaced stream held is for the one that replaced it.
    if (!isReplaced) await leave(options, member, activeMs, unsent);
  }
}

/** Makes the streams of all instances look: there may be something to be delivered again. */
export function stir(growth: Growth): void {
  growth.announce(growth.size);
}

async function leave(
  { groups, growth, log }: SubscribeOptions,
  member: Member,
  activeMs: number | undefined,
  unsent: number | undefined,
): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await groups.leave(member, activeMs, unsent);
      return stir(growth);
    } catch (err) {
      if (!isTransient(err) || tries === LEAVES) {
        const { group, consumer } = member;
        log.warn(
          { err, group, consumer },
          "a consumer's deliveries were not given back; they wait for their deadlines",
        );
        return;
      }
      await delay(LEAVE_AGAIN_MS);
    }
  }
}

function deliveriesOf({ deliveries, deadlineMs }: Claimed): AuditServiceSubscribeResponse {
  const ackDeadline = toTimestamp(deadlineMs * 1_000);
  return reply({
    case: "deliveries",
    value: {
      $typeName: "holdfast.v1.AuditDeliveries",
      deliveries: deliveries.map(({ record, ref, attempt }) =>
        create(AuditDeliverySchema, { deliveryId: deliveryId(ref), record, attempt, ackDeadline }),
      ),
    },
  });
}

function opened(value: { instanceId: string; group: string; consumer: string; created: boolean }) {
  return { $typeName: "holdfast.v1.AuditSubscribeOpened" as const, ...value };
}

function reply(message: Reply): AuditServiceSubscribeResponse {
  return create(AuditServiceSubscribeResponseSchema, { message });
}
