import { ConsecutiveBreaker } from "cockatiel";
import type { Breaker } from "./breaker.ts";
import type { Clock } from "./clock.ts";
import { UnavailableError } from "./failure.ts";
import type { Log } from "./log.ts";
import { systemTimer, type Timer } from "./timer.ts";

/** The call was not tried, because the part behind the breaker has been failing. */
export class BreakerOpenError extends UnavailableError {
  constructor(part: string, retryAfterMs: number) {
    super("CIRCUIT_OPEN", `${part} has been failing and is left alone for now`, { retryAfterMs });
  }
}

export interface BreakerOptions {
  /** What it guards, for messages. Default: "Redis". */
  readonly part?: string;
  /** This many failures in a row open it. */
  readonly failureThreshold: number;
  /** How long it stays open before a trial. */
  readonly resetTimeoutMs: number;
  /** How many probes in a row must succeed in a trial. */
  readonly halfOpenMaxCalls: number;
  /** One harmless call to the part. To be bounded in time by itself. */
  readonly probe: () => Promise<void>;
  /** Which errors say that the part is away. Default: UnavailableError. Any other answer proves that it is there. */
  readonly isFailure?: (error: unknown) => boolean;
  readonly clock: Clock;
  readonly timer?: Timer;
  readonly log?: Log;
}

export interface CircuitBreaker extends Breaker {
  /** Begins the trial now if it is open, and resolves when the trial under way has ended; for tests and operators. */
  forceTrial(): Promise<void>;
}

/**
 * closed -> (failures in a row) -> open -> (reset timeout) -> half_open -> closed, or open again.
 *
 * Cockatiel's policy is not used as a whole: in half-open it lets callers wait for the trial call, and a call that began before
 * it opened can still flip it. Callers here only ever look at the state; its counter does the counting.
 */
export function createBreaker(options: BreakerOptions): CircuitBreaker {
  const {
    clock,
    log,
    part = "Redis",
    isFailure = (error) => error instanceof UnavailableError,
    timer = systemTimer,
  } = options;
  const listeners = new Set<(state: Breaker["state"]) => void>();
  const steps: (() => Promise<void>)[] = [];
  const counter = new ConsecutiveBreaker(options.failureThreshold);
  let state: Breaker["state"] = "closed";
  // Grows whenever it opens or closes, so that a result can be told from one that belongs to an earlier time.
  let period = 0;
  let openedAt = 0;
  let totalFailures = 0;
  let lastError: Breaker["lastError"];
  let cancelReset: () => void = () => {};
  let trial: Promise<void> | undefined;
  let shut = false;

  function enter(next: Breaker["state"]): void {
    state = next;
    for (const listener of listeners) {
      try {
        listener(next);
      } catch (error) {
        log?.error({ err: error, part }, "a listener to the breaker's state failed");
      }
    }
  }

  function note(error: unknown): void {
    totalFailures += 1;
    lastError = { message: error instanceof Error ? error.message : String(error), time: clock.now() };
  }

  function open(): void {
    period += 1;
    openedAt = clock.monotonic();
    cancelReset();
    if (!shut) cancelReset = timer(() => void beginTrial(), options.resetTimeoutMs);
    enter("open");
  }

  function failed(error: unknown, began: number): void {
    note(error);
    if (began !== period) return;
    if (!counter.failure()) return;
    log?.warn({ part, failures: counter.state, lastError: lastError?.message }, "breaker opened");
    open();
  }

  function untilTrial(): number {
    return Math.max(1, Math.ceil(options.resetTimeoutMs - (clock.monotonic() - openedAt)));
  }

  /** Made for each call while it is open, and never a surprise: where it came from is not worth a walk through the stack. */
  function refusal(): BreakerOpenError {
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    try {
      return new BreakerOpenError(part, untilTrial());
    } finally {
      Error.stackTraceLimit = stackTraceLimit;
    }
  }

  function succeeded(began: number): void {
    if (began === period) counter.success();
  }

  function ended(began: number, error: unknown): void {
    if (isFailure(error)) failed(error, began);
    else succeeded(began);
  }

  function beginTrial(): Promise<void> {
    if (state !== "open" || shut) return trial ?? Promise.resolve();
    cancelReset();
    trial = runTrial().finally(() => {
      trial = undefined;
    });
    return trial;
  }

  async function runTrial(): Promise<void> {
    enter("half_open");
    try {
      for (let call = 0; call < options.halfOpenMaxCalls && !shut; call++) await options.probe();
      for (const step of steps) {
        if (shut) return;
        await step();
      }
    } catch (error) {
      // Whatever the error: a trial that did not succeed proves nothing.
      note(error);
      counter.failure();
      if (shut) return;
      log?.warn({ part, lastError: lastError?.message }, "breaker stays open: its trial failed");
      open();
      return;
    }
    if (shut) return;
    period += 1;
    counter.success();
    log?.info({ part, openMs: Math.round(clock.monotonic() - openedAt) }, "breaker closed");
    enter("closed");
  }

  return {
    get state() {
      return state;
    },
    get retryAfterMs() {
      return state === "open" ? untilTrial() : 0;
    },
    begin: () => (state === "closed" ? period : undefined),
    succeeded,
    failed: ended,
    execute: async (work) => {
      if (state !== "closed") throw refusal();
      const began = period;
      try {
        const result = await work();
        succeeded(began);
        return result;
      } catch (error) {
        ended(began, error);
        throw error;
      }
    },
    beforeClose: (step) => {
      steps.push(step);
    },
    onStateChange: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    get consecutiveFailures() {
      return counter.state;
    },
    get totalFailures() {
      return totalFailures;
    },
    get lastError() {
      return lastError;
    },
    forceTrial: beginTrial,
    close: () => {
      shut = true;
      cancelReset();
      listeners.clear();
    },
  };
}
