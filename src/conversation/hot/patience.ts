import { UnavailableError } from "../../infra/failure.ts";
import type { Guarded } from "../../infra/guarded.ts";

/**
 * Waits once for a Redis that is silent, and not again before it has answered or its connection is given up: for what others have to
 * wait for as well.
 */
export function createPatience(guarded: Guarded): Guarded {
  /** How many answers nobody waits for any more. */
  let overdue = 0;

  return async <T>(work: () => Promise<T>): Promise<T> => {
    if (overdue > 0) throw new UnavailableError("REDIS_TIMEOUT", "not asked, since it owes an answer");
    let isUnderWay = false;
    let isOverdue = false;
    const end = () => {
      isUnderWay = false;
      if (isOverdue) overdue--;
    };
    try {
      return await guarded(() => {
        isUnderWay = true;
        const answer = work();
        answer.then(end, end);
        return answer;
      });
    } catch (error) {
      if (isUnderWay) {
        isOverdue = true;
        overdue++;
      }
      throw error;
    }
  };
}
