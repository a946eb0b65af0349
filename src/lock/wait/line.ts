import type { Clock } from "../../infra/clock.ts";
import { Failure } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import type { Timer } from "../../infra/timer.ts";
import type { Authority, Lease, Taken } from "../authority/authority.ts";
import type { TakeOrder } from "../record/decide.ts";
import { clockMargin } from "./valid-for.ts";

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
}

export interface LineParts {
  readonly authority: Authority;
  readonly clock: Clock;
  readonly timer: Timer;
  readonly log: Log;
  /** Called when nobody is left in it. */
  readonly onEmpty: () => void;
  /** Called when a grant that nobody wanted any more was given back. */
  readonly onFreed: () => void;
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
  #isAsking = false;
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

  /** At the end of the line, or in front of it. */
  join(waiter: Waiter, isFirst: boolean): void {
    if (isFirst) {
      this.#waiters = new Set([waiter, ...this.#waiters]);
      this.ring();
    } else {
      this.#waiters.add(waiter);
      this.#serve();
    }
  }

  /** Whether the waiter was still there. A grant that is on its way to it is given back. */
  leave(waiter: Waiter): boolean {
    const was = this.#waiters.delete(waiter);
    if (was) this.#serve();
    return was;
  }

  /** The lock may be free. */
  ring(): void {
    this.#isRung = true;
    this.#askAt = 0;
    this.#serve();
  }

  #serve(): void {
    if (this.#isAsking) return;
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
    this.#isAsking = true;
    this.#isRung = false;
    const asked = clock.monotonic();
    try {
      this.#settle(first, await authority.take(first.order), asked);
    } catch (error) {
      this.#fail(first, error);
    }
    this.#isAsking = false;
    this.#serve();
  }

  #settle(first: Waiter, taken: Taken, asked: number): void {
    if (taken.kind === "granted") this.#grant(first, taken.lease, asked);
    else if (taken.kind === "held") this.#wait(first, taken.holder.remainingMs + AFTER_LEASE_MS, taken.holder);
    else this.#wait(first, taken.afterMs, undefined);
  }

  #grant(first: Waiter, lease: Lease, asked: number): void {
    const validUntil = asked + lease.remainingMs - clockMargin(lease.remainingMs);
    // The answer may have lain about for longer than the lease lasts: this process was paused.
    if (!this.#waiters.has(first) || validUntil <= this.#parts.clock.monotonic()) {
      this.#giveBack(lease);
      return;
    }
    this.#waiters.delete(first);
    this.#holder = lease;
    this.#askAfter(lease.remainingMs + AFTER_LEASE_MS);
    first.resolve({ kind: "acquired", lease, validUntil });
  }

  #wait(first: Waiter, forMs: number, holder: Lease | undefined): void {
    this.#holder = holder;
    this.#askAfter(forMs);
    if (!first.order.waits && this.#waiters.delete(first)) first.resolve({ kind: "held", holder });
  }

  #askAfter(ms: number): void {
    if (this.#isRung) return;
    this.#askAt = this.#parts.clock.monotonic() + Math.min(ms, ASK_AGAIN_MS);
  }

  /** Who waits for an authority that is away only learns of it later. */
  #fail(first: Waiter, error: unknown): void {
    const isAway = error instanceof Failure && error.kind === "unavailable";
    for (const waiter of isAway ? [...this.#waiters] : [first]) {
      if (this.#waiters.delete(waiter)) waiter.reject(error);
    }
  }

  #giveBack({ grant }: Lease): void {
    const { authority, log, onFreed } = this.#parts;
    const { name, token, streamId } = grant;
    this.#askAt = 0;
    authority
      .release({ name, token, streamId, end: "released", undo: true })
      .then(onFreed, (error: unknown) =>
        log.warn({ err: error, lock: name }, "could not give a lock back; its lease has to run out"),
      );
  }
}
