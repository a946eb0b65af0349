import type { Breaker } from "../infra/breaker.ts";
import { Failure, UnavailableError } from "../infra/failure.ts";

/** Runs a step on a layer that may be away: counted by the breaker, and never waited for longer than the timeout in all. */
export type Guarded = <T>(work: () => Promise<T>) => Promise<T>;

/** Whether the layer itself answered, so that its answer says nothing of its health. */
export type IsAnswer = (error: unknown) => boolean;

export function createGuarded(breaker: Breaker, timeoutMs: number, isAnswer: IsAnswer): Guarded {
  return async <T>(work: () => Promise<T>): Promise<T> => {
    const outcome = await breaker.execute(async (): Promise<{ value: T } | { error: unknown }> => {
      try {
        return { value: await within(timeoutMs, work()) };
      } catch (error) {
        if (isAnswer(error)) return { error };
        throw error;
      }
    });
    if ("error" in outcome) throw outcome.error;
    return outcome.value;
  };
}

/** A caller's mistake must reach the caller; it is no reason to answer from elsewhere. */
export function isCallersMistake(error: unknown): boolean {
  return error instanceof Failure && (error.kind === "invalid" || error.kind === "conflict");
}

function within<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new UnavailableError("REDIS_TIMEOUT", `no answer within ${timeoutMs} ms`)),
      timeoutMs,
    );
    work.then(
      (value) => {
        clearTimeout(timer);
        resolve(value);
      },
      (error: unknown) => {
        clearTimeout(timer);
        reject(error);
      },
    );
  });
}
