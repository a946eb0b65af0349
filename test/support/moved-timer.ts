import type { Timer } from "../../src/infra/timer.ts";
import { type MovedClock, movedClock } from "./moved-clock.ts";

/** A clock and the timers that go by it: moving it on runs what is due, in order. */
export interface MovedTime extends MovedClock {
  readonly timer: Timer;
  /** Time passes and nothing runs, as in a process that is frozen. What is due then runs with the next move. */
  freeze(ms: number): void;
}

interface Due {
  readonly at: number;
  readonly run: () => void;
}

export function movedTime(): MovedTime {
  const clock = movedClock();
  const waiting = new Set<Due>();

  function next(until: number): Due | undefined {
    let first: Due | undefined;
    for (const due of waiting) if (due.at <= until && (first === undefined || due.at < first.at)) first = due;
    return first;
  }

  return {
    now: clock.now,
    monotonic: clock.monotonic,
    timer(run, delayMs) {
      const due = { at: clock.monotonic() + delayMs, run };
      waiting.add(due);
      return () => waiting.delete(due);
    },
    freeze: clock.move,
    move(ms) {
      const until = clock.monotonic() + ms;
      for (let due = next(until); due !== undefined; due = next(until)) {
        waiting.delete(due);
        clock.move(Math.max(0, due.at - clock.monotonic()));
        due.run();
      }
      clock.move(Math.max(0, until - clock.monotonic()));
    },
  };
}
