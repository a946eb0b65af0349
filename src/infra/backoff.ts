/** How long to wait before the next try: doubles up to the cap, and spreads out so that instances do not come back in step. */
export interface Backoff {
  next(): number;
  reset(): void;
}

export interface BackoffOptions {
  readonly firstMs: number;
  readonly capMs: number;
  /** From 0 up to 1, as Math.random; a test passes its own. */
  readonly random?: () => number;
}

export function createBackoff(options: BackoffOptions): Backoff {
  const random = options.random ?? Math.random;
  let tries = 0;
  return {
    next: () => {
      const full = Math.min(options.capMs, options.firstMs * 2 ** Math.min(tries, 30));
      tries += 1;
      return full / 2 + (full / 2) * random();
    },
    reset: () => {
      tries = 0;
    },
  };
}
