import { createBackoff } from "../../infra/backoff.ts";
import type { Bell } from "../../infra/bell.ts";
import type { Clock } from "../../infra/clock.ts";
import type { Log } from "../../infra/log.ts";
import { isTransient } from "../../infra/transient.ts";
import type { Filter } from "../search/filter.ts";
import type { Claimed, Groups, Member } from "./groups.ts";
import type { Held } from "./subscription-held.ts";
import type { Subscription } from "./subscription-orders.ts";

/** Where a stream's deliveries come from: claims of the group, one at a time and only as the consumer takes them. */
export interface Source {
  /** Starts what there is to do now, unless something is under way. Never waits. */
  pull(): void;
  /** Deliveries to be sent, if there are some; never overdue ones. */
  take(): Claimed | undefined;
  /** The archive has grown. */
  onGrown(): void;
  /** When to pull again if nothing rings, on the monotonic clock. */
  readonly nextPull: number;
  /** Why it stopped, other than by SQL being away. */
  readonly failure: unknown;
  /** Waits for what is under way. Returns the claim that was not taken, if any. */
  close(): Promise<number | undefined>;
}

export interface SourceOptions {
  readonly groups: Groups;
  readonly member: Member;
  readonly filter: Filter | undefined;
  readonly subscription: Subscription;
  readonly held: Held;
  readonly clock: Clock;
  /** Rung when there is something to take, or a failure. */
  readonly bell: Bell;
  readonly log: Log;
}

/** Sent together at most. */
const BATCH = { leaves: 1_000, bytes: 1024 * 1024 } as const;
/** How often to look when nobody says that there is something. */
const LOOK_MS = 1_000;
/** However often the archive grows. */
const LOOK_AGAIN_MS = 10;
/** A consumer that acks one by one is not given one by one: its room is let grow for this long. */
const GATHER_MS = 20;
const GATHERED = 0.25;
const RETRY = { firstMs: 50, capMs: 1_000 } as const;

export function createSource(options: SourceOptions): Source {
  const { groups, member, filter, subscription, held, clock, bell, log } = options;
  const { maxInFlight, ackTimeoutMs, maxDeliveries } = subscription;
  const backoff = createBackoff(RETRY);
  let busy: Promise<void> | undefined;
  let ready: Claimed | undefined;
  let failure: unknown;
  // An earlier stream of this consumer may have left something.
  let promising = true;
  let recovering = true;
  let lastToken = 0;
  let lookAt = 0;
  let lookedAt = 0;
  let claimAt = 0;
  let retryAt = 0;

  function room(): number {
    return maxInFlight - held.count(clock.now());
  }

  function mayClaimAt(free: number): number {
    if (free <= 0) return Number.POSITIVE_INFINITY;
    return free >= maxInFlight * GATHERED ? 0 : claimAt;
  }

  async function look(): Promise<void> {
    lookedAt = performance.now();
    const { unread, nextDueMs } = await groups.prospect(member);
    const dueInMs = nextDueMs === undefined ? LOOK_MS : nextDueMs - clock.now();
    promising = recovering || unread || dueInMs <= 0;
    // It may have grown meanwhile, and then there is another look to come.
    if (!promising) lookAt = Math.min(lookAt, performance.now() + dueInMs);
  }

  async function claim(free: number): Promise<void> {
    const claimed = await groups.claim(member, {
      filter,
      room: { leaves: Math.min(free, BATCH.leaves), bytes: BATCH.bytes },
      ackTimeoutMs,
      maxDeliveries,
      recoverAfter: recovering ? lastToken : undefined,
    });
    recovering &&= !claimed.recovered;
    promising = claimed.more;
    claimAt = performance.now() + GATHER_MS;
    if (!promising) lookAt = lookedAt + LOOK_AGAIN_MS;
    if (claimed.deliveries.length === 0) return;
    lastToken = claimed.token;
    ready = claimed;
    const refs = claimed.deliveries.map(({ ref }) => ref);
    held.hold(refs, claimed.deadlineMs);
  }

  async function run(work: () => Promise<void>): Promise<void> {
    try {
      await work();
      backoff.reset();
    } catch (error) {
      if (!isTransient(error)) failure = error;
      log.debug({ err: error, ...member }, "deliveries cannot be claimed");
      retryAt = performance.now() + backoff.next();
      // The claim may have been carried out.
      recovering = true;
      promising = true;
    } finally {
      busy = undefined;
      bell.ring();
    }
  }

  return {
    pull() {
      const now = performance.now();
      if (busy !== undefined || ready !== undefined || now < retryAt) return;
      const free = room();
      if (promising && now >= mayClaimAt(free)) busy = run(() => claim(free));
      else if (now >= lookAt) {
        lookAt = now + LOOK_MS;
        busy = run(look);
      }
    },
    take() {
      const taken = ready;
      ready = undefined;
      if (taken === undefined || taken.deadlineMs > clock.now()) return taken;
      // The consumer was busy with something else for so long that they may be with another.
      promising = true;
      return undefined;
    },
    onGrown() {
      if (promising) return;
      lookAt = Math.min(lookAt, lookedAt + LOOK_AGAIN_MS);
      bell.ring();
    },
    get nextPull() {
      if (busy !== undefined) return Number.POSITIVE_INFINITY;
      return Math.max(retryAt, Math.min(lookAt, promising ? mayClaimAt(room()) : Number.POSITIVE_INFINITY));
    },
    get failure() {
      return failure;
    },
    async close() {
      await busy;
      return ready?.token;
    },
  };
}
