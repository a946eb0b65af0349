import type { Timer } from "../../infra/timer.ts";
import type { Lease } from "../authority/authority.ts";
import type { TakeOrder } from "../record/decide.ts";
import type { Line, Turn, Waiter } from "./line.ts";

/** Who wants a lock, and may hang up. */
export interface Caller {
  /** Only asked for when there is something to wait for. */
  readonly signal: AbortSignal;
  /** What the signal is aborted with, once it is. */
  readonly interruption: unknown;
}

export function callerOf(signal: AbortSignal): Caller {
  return {
    signal,
    get interruption() {
      return signal.reason;
    },
  };
}

/** A place in a line, while it lasts. */
export interface Place {
  readonly turn: Promise<Turn>;
  /** Resolves once it is known that there is something to wait for. Never, when the turn comes at once. */
  readonly queued: Promise<void>;
  /** From 1. */
  position(): number;
  holder(): Line["holder"];
}

/** How many want a lock now. */
export interface Crowd {
  size: number;
}

/**
 * Somebody who wants a lock. Made for each lock that is taken, most of which are free: so what only those need who wait
 * is made when somebody has to.
 */
export class Visitor implements Waiter, Place {
  readonly order: TakeOrder;
  readonly turn: Promise<Turn>;
  readonly caller: Caller;
  /** Where it stands, once there is a line. */
  line: Line | undefined;
  readonly #crowd: Crowd;
  #resolve: (turn: Turn) => void = () => {};
  #reject: (error: unknown) => void = () => {};
  #isQueued = false;
  #queued: PromiseWithResolvers<void> | undefined;
  #cancelTimer: (() => void) | undefined;
  #onAbort: (() => void) | undefined;

  constructor(order: TakeOrder, caller: Caller, crowd: Crowd) {
    this.order = order;
    this.caller = caller;
    this.#crowd = crowd;
    crowd.size++;
    this.turn = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  resolve(turn: Turn): void {
    this.#leave();
    this.#resolve(turn);
  }

  reject(error: unknown): void {
    this.#leave();
    this.#reject(error);
  }

  mustWait(): void {
    this.#isQueued = true;
    this.#queued?.resolve();
  }

  get queued(): Promise<void> {
    if (this.#queued === undefined) {
      this.#queued = Promise.withResolvers<void>();
      if (this.#isQueued) this.#queued.resolve();
    }
    return this.#queued.promise;
  }

  holder(): Lease | undefined {
    return this.line?.holder;
  }

  position(): number {
    return this.line?.placeOf(this) ?? 1;
  }

  /** Is in this line from now on, for no longer than that; undefined: for ever. */
  stand(line: Line, leftMs: number | undefined, timer: Timer): void {
    this.line = line;
    if (leftMs !== undefined) this.#cancelTimer = timer(() => line.giveUp(this), Math.max(0, leftMs));
    const { caller } = this;
    this.#onAbort = () => {
      if (line.leave(this)) this.reject(caller.interruption);
    };
    caller.signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** For who may have hung up before it stood in a line. */
  leaveIfGone(): void {
    if (this.caller.interruption !== undefined) this.#onAbort?.();
  }

  #leave(): void {
    this.#crowd.size--;
    this.#cancelTimer?.();
    if (this.#onAbort !== undefined) this.caller.signal.removeEventListener("abort", this.#onAbort);
  }
}
