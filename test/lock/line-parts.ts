import { createLog } from "../../src/infra/log.ts";
import type { Timer } from "../../src/infra/timer.ts";
import type { Authority } from "../../src/lock/authority/authority.ts";
import type { TakeOrder } from "../../src/lock/record/decide.ts";
import type { Grant } from "../../src/lock/record/grant.ts";
import type { Turn } from "../../src/lock/wait/line.ts";
import { createLines, type Lines } from "../../src/lock/wait/lines.ts";
import { callerOf, type Place } from "../../src/lock/wait/visitor.ts";
import { type MovedClock, movedClock } from "../support/moved-clock.ts";
import { until } from "../support/until.ts";
import { openSqlAuthorities, releaseOrder, takeOrder } from "./authorities.ts";

type Answered = "take" | "release";

/** An authority whose answers can be kept back, and that can be away. */
export interface Gate {
  readonly authority: Authority;
  /** What it was asked, and for whom, in order. */
  readonly asked: string[];
  /** From here on it carries out what it is asked, and does not answer. */
  hold(kind: Answered): void;
  /** Answers all that it has kept back. */
  open(): void;
  /** How many answers it keeps back. */
  readonly held: number;
  /** What it rejects with from here on, instead of being asked; if so told, only releases. */
  fail(error: Error | undefined, only?: Answered): void;
}

export function gateOf(real: Authority): Gate {
  const closed = new Set<Answered>();
  const kept = new Set<() => void>();
  const asked: string[] = [];
  let failure: { readonly error: Error; readonly only: Answered | undefined } | undefined;

  async function through<T>(kind: Answered, name: string, work: () => Promise<T>): Promise<T> {
    asked.push(`${kind} ${name}`);
    if (failure !== undefined && (failure.only ?? kind) === kind) throw failure.error;
    const answer = await work();
    if (closed.has(kind)) await new Promise<void>((resolve) => kept.add(resolve));
    return answer;
  }

  return {
    authority: {
      ...real,
      take: (order) => through("take", order.owner, () => real.take(order)),
      release: (order) => through("release", order.name, () => real.release(order)),
    },
    asked,
    hold: (kind) => void closed.add(kind),
    open() {
      closed.clear();
      for (const resolve of kept) resolve();
      kept.clear();
    },
    get held() {
      return kept.size;
    },
    fail(error, only) {
      failure = error && { error, only };
    },
  };
}

/** Timers of a clock that a test moves. */
export interface MovedTimer {
  readonly timer: Timer;
  /** Lets time pass, and runs what is due by then. */
  pass(ms: number): void;
  readonly pending: number;
}

export function movedTimer(clock: MovedClock): MovedTimer {
  const due = new Map<() => void, number>();
  return {
    timer(run, delayMs) {
      // Each has to be told apart, though the same function is run.
      const once = () => run();
      due.set(once, clock.monotonic() + delayMs);
      return () => due.delete(once);
    },
    pass(ms) {
      clock.move(ms);
      for (const [run, atMs] of [...due]) {
        if (atMs > clock.monotonic() || !due.delete(run)) continue;
        run();
      }
    },
    get pending() {
      return due.size;
    },
  };
}

/** The lines of an instance over SQLite, with answers that can be kept back and time that a test lets pass. */
export async function openLines({ mostWaiting = 1_000 } = {}) {
  const clock = movedClock();
  const opened = await openSqlAuthorities("sqlite", { clock });
  const [{ authority, heads }] = opened.instances;
  await heads.allowLeases("sqlite", 86_400_000);
  const gate = gateOf(authority);
  const time = movedTimer(clock);
  const log = createLog({ level: "silent" });
  const lines = createLines({ authority: gate.authority, clock, timer: time.timer, log, mostWaiting });
  return {
    ...{ authority, gate, time, clock, lines },
    join: (name: string, given: Joining = {}) => join(lines, name, given),
    async [Symbol.asyncDispose]() {
      gate.open();
      await opened[Symbol.asyncDispose]();
    },
  };
}

export interface Joining extends Partial<TakeOrder> {
  readonly waitMs?: number;
}

/** Somebody in a line. */
export interface Joined {
  readonly place: Place;
  /** Undefined while it waits. */
  readonly ended: () => Turn | Error | undefined;
  hangUp(): void;
  /** The grant, once it has it. */
  grant(): Promise<Grant>;
}

export function join(lines: Lines, name: string, { waitMs, ...given }: Joining): Joined {
  const caller = new AbortController();
  const place = lines.wait({ order: takeOrder(name, given), waitMs, caller: callerOf(caller.signal) });
  let ended: Turn | Error | undefined;
  place.turn.then(
    (turn) => {
      ended = turn;
    },
    (error: unknown) => {
      ended = error instanceof Error ? error : new Error(String(error));
    },
  );
  return {
    place,
    ended: () => ended,
    hangUp: () => caller.abort(new Error("hung up")),
    async grant() {
      const turn = await place.turn;
      if (turn.kind !== "acquired") throw new Error(`not acquired: ${JSON.stringify(turn)}`);
      return turn.lease.grant;
    },
  };
}

export async function release(authority: Authority, lines: Lines, grant: Grant): Promise<void> {
  const { released } = await authority.release(releaseOrder(grant));
  if (!released) throw new Error("not released");
  lines.ring(grant.name);
}

/** Until the line has its answer, and waits for who has the lock. */
export function waitsFor(place: Place, holder: Grant): Promise<unknown> {
  return until(() => place.holder()?.grant.token === holder.token, { what: "the holder is known", intervalMs: 1 });
}
