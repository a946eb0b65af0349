import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../infra/log.ts";

/** Removes what is forgotten, a little at a time. */
export interface Sweeper {
  /** All that there is now; what the timer does. */
  sweep(): Promise<void>;
  close(): Promise<void>;
}

export interface SweeperParts {
  /** Removes so many at most, and returns how many it removed. */
  readonly removeSome: (most: number) => Promise<number>;
  readonly intervalMs: number;
  readonly log: Log;
}

const PER_PORTION = 500;

export function startSweeper({ removeSome, intervalMs, log }: SweeperParts): Sweeper {
  const closing = new AbortController();
  let sweeping: Promise<void> | undefined;

  async function sweepAll(): Promise<void> {
    try {
      for (let removed = PER_PORTION; removed === PER_PORTION && !closing.signal.aborted; ) {
        const since = performance.now();
        removed = await removeSome(PER_PORTION);
        // Leaves others as much of the database as it takes.
        await delay(performance.now() - since, undefined, { signal: closing.signal, ref: false }).catch(
          () => undefined,
        );
      }
    } catch (err) {
      log.warn({ err }, "claims that are forgotten are not removed yet");
    }
  }

  function sweep(): Promise<void> {
    sweeping ??= sweepAll().finally(() => {
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
