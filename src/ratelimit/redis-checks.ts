import type { Redis } from "../infra/redis.ts";
import { checkScript } from "./redis-scripts.ts";

/** One call, as the script reads it. */
export interface CheckCall {
  readonly keys: readonly string[];
  readonly args: readonly string[];
}

/** Calls of one turn of the event loop, in one round trip: each is still decided by itself. */
export interface Checks {
  /** Calls of one group may share a script: their keys are in one slot. */
  add(group: string, call: CheckCall): Promise<string>;
}

interface Batch {
  readonly keys: string[];
  readonly args: string[];
  readonly waiting: { readonly resolve: (reply: string) => void; readonly reject: (error: unknown) => void }[];
}

/** Redis does nothing else while a script runs, so that one must not run for long. */
const MOST_KEYS = 128;

export function createChecks(redis: Pick<Redis, "run">, time: () => string): Checks {
  const batches = new Map<string, Batch>();

  function send({ keys, args, waiting }: Batch): void {
    redis
      .run(checkScript, keys, args)
      .then((replies) => {
        if (!Array.isArray(replies)) throw new TypeError("the script did not answer with a list");
        for (const [i, one] of waiting.entries()) one.resolve(String(replies[i]));
      })
      .catch((error: unknown) => {
        for (const one of waiting) one.reject(error);
      });
  }

  function flush(): void {
    for (const batch of batches.values()) send(batch);
    batches.clear();
  }

  return {
    add(group, call) {
      let batch = batches.get(group);
      if (batch !== undefined && batch.keys.length + call.keys.length > MOST_KEYS) {
        send(batch);
        batch = undefined;
      }
      if (batch === undefined) {
        if (batches.size === 0) setImmediate(flush);
        batch = { keys: [], args: [time()], waiting: [] };
        batches.set(group, batch);
      }
      batch.keys.push(...call.keys);
      batch.args.push(...call.args);
      const { waiting } = batch;
      return new Promise((resolve, reject) => {
        waiting.push({ resolve, reject });
      });
    },
  };
}
