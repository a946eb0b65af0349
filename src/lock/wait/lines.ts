import type { Clock } from "../../infra/clock.ts";
import type { Failure } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { systemTimer, type Timer } from "../../infra/timer.ts";
import type { Authority } from "../authority/authority.ts";
import { LockQueueFullError } from "../failures.ts";
import type { TakeOrder } from "../record/decide.ts";
import { Line, type Turn, type Waiter } from "./line.ts";

export interface LinesOptions {
  readonly authority: Authority;
  readonly clock: Clock;
  readonly log: Log;
  readonly timer?: Timer;
  /** How many may wait on this instance, for all locks. */
  readonly mostWaiting: number;
}

export interface Wait {
  readonly order: Omit<TakeOrder, "waits">;
  /** How long to wait for the lock; 0: not at all. Undefined: for ever. */
  readonly waitMs: number | undefined;
  /** Who hangs up leaves the line at once. */
  readonly signal: AbortSignal;
}

/** A place in a line, while it lasts. */
export interface Place {
  readonly turn: Promise<Turn>;
  /** Resolves once it is known that there is something to wait for. Never, when the turn comes at once. */
  readonly queued: Promise<void>;
  /** From 1. */
  readonly position: () => number;
  readonly holder: () => Line["holder"];
}

/** The lines of this instance, one for each lock that somebody waits for. */
export interface Lines {
  wait(wait: Wait): Place;
  /** The lock of this name may be free. */
  ring(name: string): void;
  /** Messages may have been lost. */
  ringAll(): void;
  waiters(name: string): number;
  readonly waiting: number;
  /** Sends all who wait away with this, and whoever comes. */
  close(reason: Failure): void;
}

export function createLines({ authority, clock, log, mostWaiting, timer = systemTimer }: LinesOptions): Lines {
  const lines = new Map<string, Line>();
  let waiting = 0;
  let closed: Failure | undefined;

  function lineOf(name: string): Line {
    let line = lines.get(name);
    if (line === undefined) {
      const made = new Line({
        ...{ authority, clock, timer, log },
        onEmpty() {
          if (lines.get(name) === made) lines.delete(name);
        },
      });
      lines.set(name, made);
      line = made;
    }
    return line;
  }

  function wait({ order: asked, waitMs, signal }: Wait): Place {
    const order = { ...asked, waits: waitMs !== 0 };
    if (closed !== undefined) throw closed;
    if (waiting >= mostWaiting) throw new LockQueueFullError(order.name, waiting);
    signal.throwIfAborted();
    const line = lineOf(order.name);
    const { promise, resolve, reject } = Promise.withResolvers<Turn>();
    const queued = Promise.withResolvers<void>();
    const waiter: Waiter = { order, resolve, reject, queued: queued.resolve };
    waiting++;
    const onAbort = () => {
      if (line.leave(waiter)) reject(signal.reason);
    };
    const cancelTimer = waitMs === undefined || waitMs === 0 ? undefined : timer(() => line.giveUp(waiter), waitMs);
    signal.addEventListener("abort", onAbort, { once: true });
    line.join(waiter);
    const turn = promise.finally(() => {
      waiting--;
      cancelTimer?.();
      signal.removeEventListener("abort", onAbort);
    });
    return { turn, queued: queued.promise, position: () => line.placeOf(waiter), holder: () => line.holder };
  }

  function ring(name: string): void {
    lines.get(name)?.ring();
  }

  return {
    wait,
    ring,
    ringAll() {
      for (const line of [...lines.values()]) line.ring();
    },
    waiters: (name) => lines.get(name)?.size ?? 0,
    get waiting() {
      return waiting;
    },
    close(reason) {
      closed = reason;
      for (const line of [...lines.values()]) line.sendAway(reason);
    },
  };
}
