import type { Breaker } from "./breaker.ts";
import { Failure, UnavailableError } from "./failure.ts";
import { createTimeLimit } from "./time-limit.ts";

/** Runs a step on a layer that may be away: counted by the breaker, and never waited for longer than the timeout in all. */
export type Guarded = <T>(work: () => Promise<T>) => Promise<T>;

/** Whether the layer itself answered, so that its answer says nothing of its health. */
export type IsAnswer = (error: unknown) => boolean;

/** Written without async functions: every read and write passes through here, and each would cost it a kilobyte. */
export function createGuarded(breaker: Breaker, timeoutMs: number, isAnswer: IsAnswer): Guarded {
  const limit = createTimeLimit(timeoutMs);
  return <T>(work: () => Promise<T>): Promise<T> => {
    const began = breaker.begin();
    // Rejects, with the breaker's own error.
    if (began === undefined) return breaker.execute(work);
    return new Promise<T>((resolve, reject) => {
      const limited = limit.begin(() => {
        const late = new UnavailableError("REDIS_TIMEOUT", `Redis did not answer within ${timeoutMs} ms`);
        breaker.failed(began, late);
        reject(late);
      });
      work().then(
        (value) => {
          if (limited.onOverdue === undefined) return;
          limited.onOverdue = undefined;
          breaker.succeeded(began);
          resolve(value);
        },
        (error: unknown) => {
          if (limited.onOverdue === undefined) return;
          limited.onOverdue = undefined;
          // Its own answer, if it is one, says that the layer is well.
          if (isAnswer(error)) breaker.succeeded(began);
          else breaker.failed(began, error);
          reject(error);
        },
      );
    });
  };
}

/** A caller's mistake must reach the caller; it is no reason to answer from elsewhere. */
export function isCallersMistake(error: unknown): boolean {
  return error instanceof Failure && (error.kind === "invalid" || error.kind === "conflict");
}
