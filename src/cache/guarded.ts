import type { Breaker } from "../infra/breaker.ts";
import { Failure, UnavailableError } from "../infra/failure.ts";
import { createTimeLimit } from "../infra/time-limit.ts";

/** Runs a step on a layer that may be away: counted by the breaker, and never waited for longer than the timeout in all. */
export type Guarded = <T>(work: () => Promise<T>) => Promise<T>;

/** Whether the layer itself answered, so that its answer says nothing of its health. */
export type IsAnswer = (error: unknown) => boolean;

export function createGuarded(breaker: Breaker, timeoutMs: number, isAnswer: IsAnswer): Guarded {
  const within = createTimeLimit(
    timeoutMs,
    () => new UnavailableError("REDIS_TIMEOUT", `no answer within ${timeoutMs} ms`),
  );
  return async <T>(work: () => Promise<T>): Promise<T> => {
    const outcome = await breaker.execute(() =>
      within(work()).then(
        (value): Outcome<T> => ({ value }),
        (error: unknown): Outcome<T> => {
          if (isAnswer(error)) return { error };
          throw error;
        },
      ),
    );
    if ("error" in outcome) throw outcome.error;
    return outcome.value;
  };
}

/** What the layer said; an error of its own is no failure of the layer. */
type Outcome<T> = { readonly value: T } | { readonly error: unknown };

/** A caller's mistake must reach the caller; it is no reason to answer from elsewhere. */
export function isCallersMistake(error: unknown): boolean {
  return error instanceof Failure && (error.kind === "invalid" || error.kind === "conflict");
}
