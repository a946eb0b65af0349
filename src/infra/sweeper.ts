import { setTimeout as delay } from "node:timers/promises";

/** Removes what is over, a little at a time. Instances may do so at the same time. */
export interface Sweeper {
  /** All that there is now; what the timer does. */
  sweep(): Promise<void>;
  close(): Promise<void>;
}

/** What a sweep keeps to, so that nobody waits for it for long. */
export interface Pace {
  /** False once the sweeper is being closed: what is left is left. */
  readonly goesOn: boolean;
  /** A rest between two portions: leaves others as much of the database as the last one took. Whether to go on. */
  createRest(): () => Promise<boolean>;
  /** Removes one portion after the other, as long as there may be another. */
  portions(removeOne: () => Promise<boolean>): Promise<void>;
}

export interface SweeperOptions {
  readonly intervalMs: number;
  /** One sweep at a time. Must not reject: who is to be told that something is left knows how. */
  readonly sweepAll: (pace: Pace) => Promise<void>;
}

export function startSweeper({ intervalMs, sweepAll }: SweeperOptions): Sweeper {
  const closing = new AbortController();
  let sweeping: Promise<void> | undefined;

  const pace: Pace = {
    get goesOn() {
      return !closing.signal.aborted;
    },
    createRest() {
      let since = performance.now();
      return async () => {
        // Cut short when this is closed, which is looked at below.
        await delay(performance.now() - since, undefined, { signal: closing.signal, ref: false }).catch(
          () => undefined,
        );
        since = performance.now();
        return pace.goesOn;
      };
    },
    async portions(removeOne) {
      const rest = pace.createRest();
      while ((await rest()) && (await removeOne()));
    },
  };

  function sweep(): Promise<void> {
    sweeping ??= sweepAll(pace).finally(() => {
      sweeping = undefined;
    });
    return sweeping;
  }

  const timer = setInterval(() => void sweep(), intervalMs).unref();
  return {
    sweep,
    async close() {
      closing.abort();
      clearInterval(timer);
      await sweeping;
    },
  };
}
