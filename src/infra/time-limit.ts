import type { UnavailableError } from "./failure.ts";

/** Waits for work, but not longer than the limit; what comes later is ignored. */
export type TimeLimit = <T>(work: Promise<T>) => Promise<T>;

interface Waiting {
  /** When it has waited long enough, on the monotonic clock. */
  readonly until: number;
  give: ((error: Error) => void) | undefined;
}

/**
 * All work has the same limit, so it falls due in the order it began, and one timer watches over all of it: a timer for each
 * call would cost more than the call's own book-keeping.
 */
export function createTimeLimit(limitMs: number, makeError: () => UnavailableError): TimeLimit {
  let waiting: Waiting[] = [];
  let first = 0;
  let timer: NodeJS.Timeout | undefined;

  function onTimer(): void {
    timer = undefined;
    const now = performance.now();
    for (let one = waiting[first]; one !== undefined; one = waiting[++first]) {
      if (one.give === undefined) continue;
      if (one.until > now) break;
      one.give(makeError());
    }
    if (first === waiting.length) {
      waiting = [];
      first = 0;
    } else {
      arm(now);
    }
  }

  function arm(now: number): void {
    const one = waiting[first];
    if (one !== undefined) timer = setTimeout(onTimer, Math.max(1, one.until - now));
  }

  /** Those that have ended at the front, so that the list does not grow while the timer sleeps. */
  function drop(): void {
    while (first < waiting.length && waiting[first]?.give === undefined) first++;
    if (first > 1_000 && first * 2 > waiting.length) {
      waiting = waiting.slice(first);
      first = 0;
    }
  }

  return <T>(work: Promise<T>): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      const now = performance.now();
      const one: Waiting = { until: now + limitMs, give: reject };
      drop();
      waiting.push(one);
      if (timer === undefined) arm(now);
      work.then(
        (value) => {
          one.give = undefined;
          resolve(value);
        },
        (error: unknown) => {
          one.give = undefined;
          reject(error);
        },
      );
    });
}
