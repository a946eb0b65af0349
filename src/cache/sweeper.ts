import type { Clock } from "../infra/clock.ts";
import type { Log } from "../infra/log.ts";
import type { Refuge } from "./store.ts";

const SWEEP_MS = 30_000;
const BATCH = 1_000;

/** Removes what has expired for good, a little at a time. */
export interface Sweeper {
  /** Removes all that there is to remove now; what the timer does. */
  sweep(): Promise<void>;
  close(): Promise<void>;
}

export function startSweeper(store: Pick<Refuge, "sweep">, clock: Clock, log: Log): Sweeper {
  let sweeping: Promise<void> | undefined;
  let closed = false;

  async function sweep(): Promise<void> {
    while (!closed && (await store.sweep(clock.now(), BATCH))) {
      await new Promise(setImmediate);
    }
  }

  const timer = setInterval(() => {
    sweeping ??= sweep()
      .catch((err: unknown) => log.warn({ err }, "expired cache entries not removed yet"))
      .finally(() => {
        sweeping = undefined;
      });
  }, SWEEP_MS).unref();
  return {
    sweep,
    async close() {
      closed = true;
      clearInterval(timer);
      await sweeping;
    },
  };
}
