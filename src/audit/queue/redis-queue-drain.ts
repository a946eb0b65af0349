import type { Growth } from "../archive/growth.ts";

/** The ids of the first entry that waits and of the last of all. Undefined: none waits. */
export type Frontier = { readonly first: string; readonly last: string } | undefined;

interface Waiter {
  /** The last entry when it came. */
  readonly target: string;
  settle(error?: unknown): void;
}

const SHORTEST_POLL_MS = 5;
const LONGEST_POLL_MS = 100;

export interface Drain {
  readonly awaited: boolean;
  /** Waits until what is in the stream now is archived. */
  wait(signal: AbortSignal): Promise<void>;
}

/** All who wait share the looking. */
export function createDrain(look: () => Promise<Frontier>, growth: Growth): Drain {
  const waiters = new Set<Waiter>();
  let asked: Promise<Frontier> | undefined;
  let forget: (() => void) | undefined;
  let pollMs = SHORTEST_POLL_MS;
  let timer: NodeJS.Timeout | undefined;
  let looking = false;

  /** The frontier as it is after the call. Calls in one turn share the question. */
  function ask(): Promise<Frontier> {
    asked ??= new Promise((resolve, reject) => {
      setImmediate(() => {
        asked = undefined;
        look().then(resolve, reject);
      });
    });
    return asked;
  }

  function schedule(): void {
    clearTimeout(timer);
    if (waiters.size === 0) {
      forget?.();
      forget = undefined;
      return;
    }
    forget ??= growth.onGrown(() => {
      // The entries are removed right after the commit that is announced.
      pollMs = SHORTEST_POLL_MS;
      void poll();
    });
    timer = setTimeout(() => void poll(), pollMs).unref();
    pollMs = Math.min(LONGEST_POLL_MS, 2 * pollMs);
  }

  async function poll(): Promise<void> {
    if (looking) return;
    looking = true;
    const present = [...waiters];
    try {
      const frontier = await look();
      for (const waiter of present)
        if (frontier === undefined || isBefore(waiter.target, frontier.first)) waiter.settle();
    } catch (error) {
      for (const waiter of present) waiter.settle(error);
    }
    looking = false;
    schedule();
  }

  function waitFor(target: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => waiter.settle(signal.reason);
      const waiter: Waiter = {
        target,
        settle(error) {
          waiters.delete(waiter);
          signal.removeEventListener("abort", onAbort);
          if (error === undefined) resolve();
          else reject(error);
        },
      };
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener("abort", onAbort, { once: true });
      waiters.add(waiter);
      pollMs = SHORTEST_POLL_MS;
      if (!looking) schedule();
    });
  }

  return {
    get awaited() {
      return waiters.size > 0;
    },
    async wait(signal) {
      signal.throwIfAborted();
      const frontier = await ask();
      if (frontier !== undefined) await waitFor(frontier.last, signal);
    },
  };
}

function isBefore(one: string, other: string): boolean {
  const [ms = 0, number = 0] = one.split("-").map(Number);
  const [otherMs = 0, otherNumber = 0] = other.split("-").map(Number);
  return ms < otherMs || (ms === otherMs && number < otherNumber);
}
