import type { Clock } from "../../infra/clock.ts";
import type { Log } from "../../infra/log.ts";
import { systemTimer, type Timer } from "../../infra/timer.ts";
import type { Authority } from "../authority/authority.ts";
import { LockQueueFullError } from "../failures.ts";
import type { TakeOrder } from "../record/decide.ts";
import type { Grant } from "../record/grant.ts";
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
  readonly order: TakeOrder;
  /** How long to wait for the lock; 0: not at all. Undefined: for ever. */
  readonly waitMs: number | undefined;
  /** Who hangs up leaves the line at once. */
  readonly signal: AbortSignal;
}

/** A place in a line, while it lasts. */
export interface Place {
  readonly turn: Promise<Turn>;
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
}

export function createLines({ authority, clock, log, mostWaiting, timer = systemTimer }: LinesOptions): Lines {
  const lines = new Map<string, Line>();
  let waiting = 0;

  function lineOf(name: string): Line {
    let line = lines.get(name);
    if (line === undefined) {
      const made = new Line({
        ...{ authority, clock, timer, log },
        onEmpty() {
          if (lines.get(name) === made) lines.delete(name);
        },
        onFreed: () => ring(name),
      });
      lines.set(name, made);
      line = made;
    }
    return line;
  }

  function wait({ order, waitMs, signal }: Wait): Place {
    if (waiting >= mostWaiting) throw new LockQueueFullError(order.name, waiting);
    signal.throwIfAborted();
    const line = lineOf(order.name);
    const { promise, resolve, reject } = Promise.withResolvers<Turn>();
    const waiter: Waiter = { order, resolve, reject };
    if (waitMs === 0 && line.size > 0 && !isRetry(order, line.holder?.grant)) {
      resolve({ kind: "held", holder: line.holder });
      return { turn: promise, position: () => 0, holder: () => line.holder };
    }
    waiting++;
    const onAbort = () => {
      if (line.leave(waiter)) reject(signal.reason);
    };
    const onOver = () => {
      if (line.leave(waiter)) resolve({ kind: "held", holder: line.holder });
    };
    const cancelTimer = waitMs === undefined || waitMs === 0 ? undefined : timer(onOver, waitMs);
    signal.addEventListener("abort", onAbort, { once: true });
    line.join(waiter, isRetry(order, line.holder?.grant));
    const turn = promise.finally(() => {
      waiting--;
      cancelTimer?.();
      signal.removeEventListener("abort", onAbort);
    });
    return { turn, position: () => line.placeOf(waiter), holder: () => line.holder };
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
  };
}

/** A retry asks for what its first attempt holds: it must not wait behind those who wait for that. */
function isRetry({ request }: TakeOrder, holder: Grant | undefined): boolean {
  return request !== undefined && holder?.requestId === request.id;
}
