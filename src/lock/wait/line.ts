import type { Clock } from "../../infra/clock.ts";
import { Failure } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import type { Timer } from "../../infra/timer.ts";
import type { Authority, Lease, Taken } from "../authority/authority.ts";
import type { TakeOrder } from "../record/decide.ts";
import { giveBack } from "./give-back.ts";
import { validUntilOf } from "./valid-for.ts";

/** How a wait ended. */
export type Turn =
  /** `validUntil` is on this process' monotonic clock. */
  | { readonly kind: "acquired"; readonly lease: Lease; readonly validUntil: number }
  | { readonly kind: "held"; readonly holder: Lease | undefined };

/** Somebody in the line. */
export interface Waiter {
  readonly order: TakeOrder;
  resolve(turn: Turn): void;
  reject(error: unknown): void;
  /** There is something to wait for. */
  mustWait(): void;
}

export interface LineParts {
  readonly authority: Authority;
  readonly clock: Clock;
  readonly timer: Timer;
  readonly log: Log;
  /** Called when nobody is left in it, and nothing is on its way. */
  readonly onEmpty: () => void;
}

/** Messages that a lock is free can be lost: whoever waits asks again after this long, whatever the lease ahead says. */
const ASK_AGAIN_MS = 5_000;
/** When the lease ahead ends by the authority's clock, it is asked this much later. */
const AFTER_LEASE_MS = 1;

/**
 * Those who wait for one lock on this instance, in the order they came. Only the first of them asks the authority: at once, when
 * woken, and when the lease ahead ends.
 */
export class Line {
  readonly #parts: LineParts;
  #waiters = new Set<Waiter>();
  /** Those of them who do not wait for who has the lock: the next answer is the last for them. */
  readonly #impatient = new Set<Waiter>();
  /** For whom the authority is being asked, though it may have left. */
  #asking: Waiter | undefined;
  /** Rung while asking: the answer may be older than that. */
  #isRung = false;
  #holder: Lease | undefined;
  /** Nobody needs to ask before, on the monotonic clock. */
  #askAt = 0;
  #cancelTimer: (() => void) | undefined;

  constructor(parts: LineParts) {
    this.#parts = parts;
  }

  get size(): number {
    return this.#waiters.size;
  }

  /** As last seen. */
  get holder(): Lease | undefined {
    return this.#holder;
  }

  /** From 1. */
  placeOf(waiter: Waiter): number {
    let place = 0;
    for (const one of this.#waiters) {
      place++;
      if (one === waiter) break;
    }
    return place;
  }

  /** Somebody for whom the authority is being asked already: the first in a line that begins with it. */
  adopt(waiter: Waiter): void {
    this.#waiters.add(waiter);
    if (!waiter.order.waits) this.#impatient.add(waiter);
    this.#asking = waiter;
  }

  /** At the end of the line; but a retry of what has the lock must not wait behind those who wait for that. */
  join(waiter: Waiter): void {
    const isLast = this.#waiters.size > 0;
    this.#waiters.add(waiter);
    if (!waiter.order.waits) this.#impatient.add(waiter);
    if (this.#holder !== undefined && this.#putForward(this.#holder)) this.ring();
    else if (isLast) this.#queue(waiter);
    else this.#serve();
  }

  /** Whether the waiter was still there. A grant that is on its way to it is given back. */
  leave(waiter: Waiter): boolean {
    const was = this.#remove(waiter);
    if (was) this.#serve();
    return was;
  }

  /** The waiter does not wait any longer. If it is being asked for, the answer decides. */
  giveUp(waiter: Waiter): void {
    if (this.#asking === waiter && this.#waiters.has(waiter)) this.#impatient.add(waiter);
    else if (this.leave(waiter)) waiter.resolve({ kind: "held", holder: this.#holder });
  }

  /** The lock may be free. */
  ring(): void {
    this.#isRung = true;
    this.#askAt = 0;
    this.#serve();
  }

  /** Nobody is served any more. A grant that is on its way is given back. */
  sendAway(reason: Failure): void {
    for (const waiter of [...this.#waiters]) if (this.#remove(waiter)) waiter.reject(reason);
    this.#serve();
  }

  #serve(): void {
    if (this.#asking !== undefined) return;
    const [first] = this.#waiters;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (first === undefined) {
      this.#parts.onEmpty();
      return;
    }
    const waitMs = this.#askAt - this.#parts.clock.monotonic();
    if (waitMs > 0) this.#cancelTimer = this.#parts.timer(() => this.#serve(), Math.ceil(waitMs));
    else void this.#ask(first);
  }

  async #ask(first: Waiter): Promise<void> {
    const { authority, clock } = this.#parts;
    this.#asking = first;
    this.#isRung = false;
    const asked = clock.monotonic();
    try {
      await this.answered(first, await authority.take(first.order), asked);
    } catch (error) {
      this.failed(first, error);
    }
  }

  /** The authority's answer for who is asked for, which was asked at that time of the monotonic clock. */
  async answered(first: Waiter, taken: Taken, asked: number): Promise<void> {
    if (taken.kind === "granted") await this.#grant(first, taken.lease, asked);
    else if (taken.kind === "held") this.#wait(first, taken.holder.remainingMs + AFTER_LEASE_MS, taken.holder);
    else this.#wait(first, taken.afterMs, undefined);
    this.#asking = undefined;
    this.#serve();
  }

  /** The same for who gets no answer. Who waits for an authority that is away only learns of it later. */
  failed(first: Waiter, error: unknown): void {
    const isAway = error instanceof Failure && error.kind === "unavailable";
    for (const waiter of isAway ? [...this.#waiters] : [first]) {
      if (this.#remove(waiter)) waiter.reject(error);
    }
    this.#asking = undefined;
    this.#serve();
  }

  async #grant(first: Waiter, lease: Lease, asked: number): Promise<void> {
    const validUntil = validUntilOf(lease, asked);
    // The answer may have lain about for longer than the lease lasts: this process was paused.
    const isLate = validUntil <= this.#parts.clock.monotonic();
    if (isLate || !this.#remove(first)) {
      this.#askAt = 0;
      // Whoever comes next must find the lock free, and not what is about to be given back.
      await giveBack(this.#parts, first.order, lease);
      return;
    }
    first.resolve({ kind: "acquired", lease, validUntil });
    this.#wait(undefined, lease.remainingMs + AFTER_LEASE_MS, lease);
  }

  #wait(first: Waiter | undefined, forMs: number, holder: Lease | undefined): void {
    this.#holder = holder;
    if (!this.#isRung) this.#askAt = this.#parts.clock.monotonic() + Math.min(forMs, ASK_AGAIN_MS);
    if (holder !== undefined && this.#putForward(holder)) this.#askAt = 0;
    for (const waiter of [...this.#impatient]) {
      // Of those who have been put forward none has its answer yet.
      if (!isRetryOf(waiter, holder) && this.#remove(waiter)) waiter.resolve({ kind: "held", holder });
    }
    first?.mustWait();
  }

  /** Whether there is a retry of what has the lock. */
  #putForward(holder: Lease): boolean {
    if (holder.grant.requestId === "") return false;
    const retries = [...this.#waiters].filter((waiter) => isRetryOf(waiter, holder));
    if (retries.length > 0) this.#waiters = new Set([...retries, ...this.#waiters]);
    return retries.length > 0;
  }

  /** Somebody is ahead of it. */
  #queue(waiter: Waiter): void {
    if (this.#asking !== undefined || !this.#impatient.has(waiter)) waiter.mustWait();
    else this.giveUp(waiter);
  }

  #remove(waiter: Waiter): boolean {
    this.#impatient.delete(waiter);
    return this.#waiters.delete(waiter);
  }
}

function isRetryOf({ order }: Waiter, holder: Lease | undefined): boolean {
  return order.request !== undefined && order.request.id === holder?.grant.requestId;
}
