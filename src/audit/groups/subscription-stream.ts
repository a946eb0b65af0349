import { setTimeout as delay } from "node:timers/promises";
import type { AuditServiceSubscribeRequest } from "../../gen/holdfast/v1/audit_pb.js";
import { type Bell, createBell } from "../../infra/bell.ts";
import type { Clock } from "../../infra/clock.ts";
import type { Log } from "../../infra/log.ts";
import { isTransient } from "../../infra/transient.ts";
import type { Growth } from "../archive/growth.ts";
import type { DeliveryRef } from "./deliveries.ts";
import { ConsumerReplacedError, type Groups, type Joined } from "./groups.ts";
import { createHeld } from "./subscription-held.ts";
import { type SettleOrder, type Subscription, settleOrderOf } from "./subscription-orders.ts";
import { createSettler, type Settler } from "./subscription-settler.ts";
import { createSource, type Source } from "./subscription-source.ts";

export interface StreamOptions {
  readonly groups: Groups;
  readonly growth: Growth;
  /** The streams of this instance by consumer, so that one is told at once when another takes its name. */
  readonly streams: Map<string, (replaced: ConsumerReplacedError) => void>;
  readonly clock: Clock;
  readonly log: Log;
}

/** What goes on behind a consumer's stream, whether or not it takes what there is for it. */
export interface Stream {
  /** Rung when there is something to look at. */
  readonly bell: Bell;
  readonly settler: Settler;
  readonly source: Source;
  /** Why the consumer sends no more: it said so (then without an error), or is gone, or has to go. Undefined: it may. */
  readonly ending: { readonly error?: unknown } | undefined;
  /** Why the stream has to end at once. */
  readonly failure: unknown;
  /** The consumer was sent something. */
  onSent(): void;
  /** Gives back what the consumer held. */
  close(): Promise<void>;
}

/** How often a stream says that it is open. */
const TOUCH_MS = 5_000;
/** How often, and how long after each other, it is tried to give back what a stream held; else it waits for its deadlines. */
const LEAVES = 5;
const LEAVE_AGAIN_MS = 300;

/** Makes the streams of all instances look: there may be something to be delivered again. */
export function stir(growth: Growth): void {
  growth.announce(growth.size);
}

/** The stream of a consumer that has just joined. */
export function openStream(
  incoming: AsyncIterator<AuditServiceSubscribeRequest>,
  signal: AbortSignal,
  subscription: Subscription,
  joined: Joined,
  options: StreamOptions,
): Stream {
  const { groups, growth, streams, clock, log } = options;
  const { join: member, ackTimeoutMs } = subscription;
  const bell = createBell();
  const held = createHeld();
  const source = createSource({ groups, member, filter: joined.filter, subscription, held, clock, bell, log });
  const settler = createSettler({ perform, bell });
  let activeMs: number | undefined;
  let ending: Stream["ending"];
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

  function onReplaced(error: ConsumerReplacedError): void {
    replaced = error;
    bell.ring();
  }

  async function leave(unsent: number | undefined): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        // Thousands may leave at a time, and those who stay need not look each time.
        if (await groups.leave(member, activeMs, unsent)) stir(growth);
        return;
      } catch (err) {
        if (!isTransient(err) || tries === LEAVES) {
          const { group, consumer } = member;
          log.warn({ err, group, consumer }, "deliveries were not given back; they wait for their deadlines");
          return;
        }
        await delay(LEAVE_AGAIN_MS);
      }
    }
  }

  const name = JSON.stringify([member.group, member.consumer]);
  streams.get(name)?.(new ConsumerReplacedError(member));
  streams.set(name, onReplaced);
  // A stream of another instance that had the name learns it by looking.
  if (joined.replaced) stir(growth);
  const forgetGrowth = growth.onGrown(source.onGrown);
  const touching = setInterval(() => {
    groups.touch(member, activeMs).catch((err: unknown) => log.debug({ err, ...member }, "a consumer was not seen"));
  }, TOUCH_MS).unref();
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  void read();

  return {
    bell,
    settler,
    source,
    get ending() {
      return ending;
    },
    get failure() {
      return replaced ?? settler.failure ?? source.failure;
    },
    onSent() {
      activeMs = clock.now();
    },
    async close() {
      signal.removeEventListener("abort", onAbort);
      clearInterval(touching);
      forgetGrowth();
      if (streams.get(name) === onReplaced) streams.delete(name);
      await settler.finish();
      const unsent = await source.close();
      const isReplaced = (replaced ?? source.failure) instanceof ConsumerReplacedError;
      // What a replaced stream held is for the one that replaced it.
      if (!isReplaced) await leave(unsent);
    },
  };
}
