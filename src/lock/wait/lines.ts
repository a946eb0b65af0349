import { createChurnTable } from "../../infra/churn-table.ts";
import type { Clock } from "../../infra/clock.ts";
import type { Failure } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { systemTimer, type Timer } from "../../infra/timer.ts";
import type { Authority, Taken } from "../authority/authority.ts";
import { LockQueueFullError } from "../failures.ts";
import type { TakeOrder } from "../record/decide.ts";
import { Line, type Turn } from "./line.ts";
import { validUntilOf } from "./valid-for.ts";
import { type Caller, type Crowd, type Place, Visitor } from "./visitor.ts";

export interface LinesOptions {
  readonly authority: Authority;
  readonly clock: Clock;
  readonly log: Log;
  readonly timer?: Timer;
  /** How many may wait on this instance, for all locks. */
  readonly mostWaiting: number;
}

export interface Wait {
  /** Whether it waits is said by how long. */
  readonly order: TakeOrder;
  /** How long to wait for the lock; 0: not at all. Undefined: for ever. */
  readonly waitMs: number | undefined;
  /** Who hangs up leaves the line at once. */
  readonly caller: Caller;
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

/** Somebody for whom the authority is asked for the first time, while nobody else here wants the lock. */
interface Asked {
  readonly visitor: Visitor;
  readonly waitMs: number | undefined;
  /** On the monotonic clock. */
  readonly at: number;
}

export function createLines({ authority, clock, log, mostWaiting, timer = systemTimer }: LinesOptions): Lines {
  const lines = new Map<string, Line>();
  /** Most locks are free, and then this is all: there is a line only where something has to be waited for. */
  const alone = createChurnTable<Asked>();
  const crowd: Crowd = { size: 0 };
  let closed: Failure | undefined;

  function openLine(name: string): Line {
    const line = new Line({
      ...{ authority, clock, timer, log },
      onEmpty() {
        if (lines.get(name) === line) lines.delete(name);
      },
    });
    lines.set(name, line);
    return line;
  }

  /** Undefined where nobody wants this lock, or had it on its way. */
  function lineOf(name: string): Line | undefined {
    const asked = alone.get(name);
    return asked === undefined ? lines.get(name) : lineOfOne(asked);
  }

  /** Whoever was alone is the first in a line from now on. */
  function lineOfOne({ visitor, waitMs, at }: Asked): Line {
    const { name } = visitor.order;
    alone.delete(name);
    const line = openLine(name);
    line.adopt(visitor);
    stand(visitor, line, waitMs, at);
    visitor.leaveIfGone();
    return line;
  }

  function stand(visitor: Visitor, line: Line, waitMs: number | undefined, since: number): void {
    const leftMs = waitMs === undefined || waitMs === 0 ? undefined : since + waitMs - clock.monotonic();
    visitor.stand(line, leftMs, timer);
  }

  function ask(visitor: Visitor, waitMs: number | undefined): void {
    const asked: Asked = { visitor, waitMs, at: clock.monotonic() };
    alone.set(visitor.order.name, asked);
    authority.take(visitor.order).then(
      (taken) => answered(asked, taken),
      (error: unknown) => failed(asked, error),
    );
  }

  function answered(asked: Asked, taken: Taken): void {
    const { visitor, at } = asked;
    if (visitor.line === undefined) {
      const turn = visitor.caller.interruption === undefined ? turnOf(taken, visitor.order, at) : undefined;
      if (turn !== undefined) {
        alone.delete(visitor.order.name);
        visitor.resolve(turn);
        return;
      }
    }
    void (visitor.line ?? lineOfOne(asked)).answered(visitor, taken, at);
  }

  /** Undefined when there is more to do. */
  function turnOf(taken: Taken, { waits }: TakeOrder, asked: number): Turn | undefined {
    if (taken.kind === "held") return waits ? undefined : taken;
    if (taken.kind === "yield") return undefined;
    const { lease } = taken;
    const validUntil = validUntilOf(lease, asked);
    return validUntil > clock.monotonic() ? { kind: "acquired", lease, validUntil } : undefined;
  }

  function failed({ visitor }: Asked, error: unknown): void {
    if (visitor.line !== undefined) {
      visitor.line.failed(visitor, error);
      return;
    }
    alone.delete(visitor.order.name);
    visitor.reject(error);
  }

  function all(): Line[] {
    for (const asked of alone.values()) lineOfOne(asked);
    return [...lines.values()];
  }

  return {
    wait({ order, waitMs, caller }) {
      const waits = waitMs !== 0;
      if (closed !== undefined) throw closed;
      if (crowd.size >= mostWaiting) throw new LockQueueFullError(order.name, crowd.size);
      if (caller.interruption !== undefined) throw caller.interruption;
      const line = lineOf(order.name);
      const visitor = new Visitor(order.waits === waits ? order : { ...order, waits }, caller, crowd);
      if (line === undefined) {
        ask(visitor, waitMs);
      } else {
        stand(visitor, line, waitMs, clock.monotonic());
        line.join(visitor);
      }
      return visitor;
    },
    ring(name) {
      lineOf(name)?.ring();
    },
    ringAll() {
      for (const line of all()) line.ring();
    },
    waiters(name) {
      const asked = alone.get(name);
      if (asked === undefined) return lines.get(name)?.size ?? 0;
      return asked.visitor.caller.interruption === undefined ? 1 : 0;
    },
    get waiting() {
      return crowd.size;
    },
    close(reason) {
      closed = reason;
      for (const line of all()) line.sendAway(reason);
    },
  };
}
