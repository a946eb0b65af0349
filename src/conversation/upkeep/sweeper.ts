import { setTimeout as delay } from "node:timers/promises";
import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import type { Remains } from "./remains.ts";
import type { Removal } from "./removal.ts";

/** Removes what is over, a little at a time. Instances may do so at the same time. */
export interface Sweeper {
  /** All that there is now; what the timer does. */
  sweep(): Promise<void>;
  close(): Promise<void>;
}

export interface SweeperParts {
  readonly remains: Remains;
  readonly removal: Removal;
  /** Removes one portion of the changes that are kept no longer. Whether there may be another. */
  readonly removeChanges: (untilUs: number) => Promise<boolean>;
  readonly changesKeptMs: number;
  readonly intervalMs: number;
  readonly clock: Clock;
  readonly log: Log;
}

/** There are few counts, and looking through them costs more than having some that are zero. */
const SWEEPS_PER_COUNTS = 60;

export function startSweeper(parts: SweeperParts): Sweeper {
  const { remains, removal, removeChanges, clock, log } = parts;
  const closing = new AbortController();
  let sweeps = 0;
  let sweeping: Promise<void> | undefined;

  /** Leaves others as much of the database as it takes. */
  function createPace(): () => Promise<boolean> {
    let since = performance.now();
    return async () => {
      // Cut short when this is closed, which is looked at below.
      await delay(performance.now() - since, undefined, { signal: closing.signal, ref: false }).catch(() => undefined);
      since = performance.now();
      return !closing.signal.aborted;
    };
  }

  async function removeOver(): Promise<void> {
    const { conversations, tombstones } = await removal({
      ...{ includes: () => true, limit: Number.POSITIVE_INFINITY, dryRun: false, goOn: createPace() },
    });
    if (conversations > 0) log.debug({ conversations, tombstones }, "removed conversations that had expired");
  }

  async function portions(removeOne: () => Promise<boolean>): Promise<void> {
    const goOn = createPace();
    while ((await goOn()) && (await removeOne()));
  }

  const tasks: readonly (() => Promise<void>)[] = [
    removeOver,
    () => portions(() => remains.removeMessages(clock.now() * 1000)),
    () => portions(() => remains.removeAnswers(clock.now() * 1000)),
    () => portions(() => removeChanges((clock.now() - parts.changesKeptMs) * 1000)),
    async () => {
      if (sweeps % SWEEPS_PER_COUNTS !== 0) return;
      const goOn = createPace();
      for await (const _ of remains.removeEmptyCounts()) if (!(await goOn())) return;
    },
  ];

  async function sweepAll(): Promise<void> {
    for (const task of tasks) {
      if (closing.signal.aborted) break;
      try {
        await task();
      } catch (err) {
        log.warn({ err }, "what is over of conversations is not removed yet");
        // What one of them cannot remove does not keep the others, unless nothing can be removed.
        if (err instanceof UnavailableError) break;
      }
    }
    sweeps++;
  }

  function sweep(): Promise<void> {
    sweeping ??= sweepAll().finally(() => {
      sweeping = undefined;
    });
    return sweeping;
  }

  const timer = setInterval(() => void sweep(), parts.intervalMs).unref();
  return {
    sweep,
    async close() {
      closing.abort();
      clearInterval(timer);
      await sweeping;
    },
  };
}
