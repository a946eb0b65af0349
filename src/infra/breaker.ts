/**
 * Keeps calls away from a part that is failing. While it is not closed nothing waits for that part: callers are told at once
 * and go on without it. Recovery is never tried on a caller's time: a background trial does it.
 */
export interface Breaker {
  readonly state: "closed" | "open" | "half_open";
  /** Until it is tried whether the part is back; 0 when it is not open. */
  readonly retryAfterMs: number;
  /** Runs `work` when closed and counts how it went; rejects with BreakerOpenError (circuit-breaker.ts) at once when not. */
  execute<T>(work: () => Promise<T>): Promise<T>;
  /**
   * The same in two halves, for paths on which a promise more is felt: undefined when not closed; otherwise to be handed back,
   * once, with how it went.
   */
  begin(): number | undefined;
  succeeded(began: number): void;
  failed(began: number, error: unknown): void;
  /**
   * A step that must succeed before the breaker closes (healing what changed meanwhile). Runs in half-open, after the trial
   * calls succeeded, in the order added. A throw re-opens the breaker.
   */
  beforeClose(step: () => Promise<void>): void;
  onStateChange(listener: (state: Breaker["state"]) => void): () => void;
  /** Failures since the last success, and since the start; for health and metrics. */
  readonly consecutiveFailures: number;
  readonly totalFailures: number;
  readonly lastError: { readonly message: string; readonly time: number } | undefined;
  close(): void;
}
