import type { Breaker } from "../../infra/breaker.ts";
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
    append: (append) => guarded(() => queue.append(append)),
    find: (ids) => guarded(() => queue.find(ids)),
    sequences: (producer) => guarded(() => queue.sequences(producer)),
    lastSequence: (producer) => guarded(() => queue.lastSequence(producer)),
    drained: (signal) => guarded(() => queue.drained(signal)),
    condition: () => guarded(() => queue.condition()),
  };
}
