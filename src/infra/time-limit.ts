/** Something that may take no longer than the limit. */
export interface Limited {
  /** When it is due, on the monotonic clock. */
  readonly until: number;
  /** Called once if it is still under way then. Unset it when it has ended. */
  onOverdue: (() => void) | undefined;
}

export interface TimeLimit {
  begin(onOverdue: () => void): Limited;
}

/**
 * All work has the same limit, so it falls due in the order it began, and one timer watches over all of it: a timer for each
 * call would cost more than the call's own book-keeping.
 */
export function createTimeLimit(limitMs: number): TimeLimit {
  let waiting: Limited[] = [];
  let first = 0;
  let timer: NodeJS.Timeout | undefined;

  /**
   * When this process itself was late, what is waited for may have come long ago and only not been read: timers run before that.
   * So nothing is overdue before all that has come was looked at.
   */
  function onTimer(): void {
    setImmediate(expire);
  }

  function expire(): void {
    timer = undefined;
    const now = performance.now();
    for (let one = waiting[first]; one !== undefined; one = waiting[++first]) {
      const { onOverdue } = one;
      if (onOverdue === undefined) continue;
      if (one.until > now) break;
      one.onOverdue = undefined;
      onOverdue();
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
    while (first < waiting.length && waiting[first]?.onOverdue === undefined) first++;
    if (first > 1_000 && first * 2 > waiting.length) {
      waiting = waiting.slice(first);
      first = 0;
    }
  }

  return {
    begin(onOverdue) {
      const now = performance.now();
      const one: Limited = { until: now + limitMs, onOverdue };
      drop();
      waiting.push(one);
      if (timer === undefined) arm(now);
      return one;
    },
  };
}
