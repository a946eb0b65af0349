import type { Breaker } from "../../infra/breaker.ts";
import { BreakerOpenError } from "../../infra/circuit-breaker.ts";
import { type Queue, QueueFullError } from "./queue.ts";

/** A queue that is left alone while Redis fails: then every call rejects at once. */
export function guardQueue(queue: Queue, breaker: Breaker): Queue {
  async function guarded<T>(work: () => Promise<T>): Promise<T> {
    // A queue that is full is there: its refusal must not open the breaker.
    let full: QueueFullError | undefined;
    const answer = await breaker.execute(async () => {
      try {
        return { value: await work() };
      } catch (error) {
        if (!(error instanceof QueueFullError)) throw error;
        full = error;
        return undefined;
      }
    });
    if (answer === undefined) throw full ?? new Error("the queue gave no answer");
    return answer.value;
  }

  return {
    traffic: queue.traffic,
    append: (append) => guarded(() => queue.append(append)),
    raise: (marks) => guarded(() => queue.raise(marks)),
    find: (ids) => guarded(() => queue.find(ids)),
    sequences: (producer) => guarded(() => queue.sequences(producer)),
    lastSequence: (producer) => guarded(() => queue.lastSequence(producer)),
    async drained(signal) {
      const began = breaker.begin();
      if (began === undefined) throw new BreakerOpenError("Redis", 1_000);
      try {
        await queue.drained(signal);
        breaker.succeeded(began);
      } catch (error) {
        // Whoever stops waiting says nothing about Redis.
        if (signal.aborted) breaker.succeeded(began);
        else breaker.failed(began, error);
        throw error;
      }
    },
    condition: () => guarded(() => queue.condition()),
  };
}
