/** Lets a reader wait until a key changes, on this instance or another. */
export interface Arrivals {
  /** Starts listening at once, so that a change between this and the waiting is not missed. */
  expect(namespace: string, key: string): Arrival;
  /** The key changed. */
  wake(namespace: string, key: string): void;
  /** Something changed, nobody knows what. */
  wakeAll(): void;
  /** From now on nobody waits: who does is woken, who comes is not kept. */
  end(): void;
  readonly ended: boolean;
  /** How many are waiting now. */
  readonly waiting: number;
}

export interface Arrival {
  /** Until the key changes, the time has passed, or the signal is aborted (then it rejects with its reason). */
  wait(ms: number, signal: AbortSignal): Promise<void>;
  cancel(): void;
}

export function createArrivals(): Arrivals {
  const expected = new Map<string, Set<() => void>>();
  let waiting = 0;
  let ended = false;
  const nameOf = (namespace: string, key: string) => `${namespace}/${key}`;

  function wakeAll(): void {
    for (const wakers of expected.values()) for (const resolve of wakers) resolve();
  }

  return {
    expect(namespace, key) {
      const name = nameOf(namespace, key);
      const { promise, resolve } = Promise.withResolvers<void>();
      const wakers = expected.get(name) ?? new Set();
      expected.set(name, wakers.add(resolve));
      const cancel = () => {
        wakers.delete(resolve);
        if (wakers.size === 0 && expected.get(name) === wakers) expected.delete(name);
      };
      return {
        cancel,
        async wait(ms, signal) {
          signal.throwIfAborted();
          if (ended) return;
          const { promise: aborted, reject } = Promise.withResolvers<never>();
          const onAbort = () => reject(signal.reason);
          signal.addEventListener("abort", onAbort, { once: true });
          const timer = setTimeout(resolve, ms);
          waiting++;
          try {
            await Promise.race([promise, aborted]);
          } finally {
            waiting--;
            clearTimeout(timer);
            signal.removeEventListener("abort", onAbort);
            cancel();
          }
        },
      };
    },
    wake(namespace, key) {
      for (const resolve of expected.get(nameOf(namespace, key)) ?? []) resolve();
    },
    wakeAll,
    end() {
      ended = true;
      wakeAll();
    },
    get ended() {
      return ended;
    },
    get waiting() {
      return waiting;
    },
  };
}
