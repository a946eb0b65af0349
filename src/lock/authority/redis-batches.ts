import type { Guarded } from "../../infra/guarded.ts";
import type { Redis, RedisArgument, RedisScript } from "../../infra/redis.ts";

/** One of the orders that a script carries out together. */
export interface BatchedOrder {
  /** What the script says of it, and when, by the clock of Redis. What this throws, it fails with. */
  answered(answer: unknown, nowMs: number): void;
  /** `wasSent`: nobody knows whether it was carried out. */
  failed(error: unknown, wasSent: boolean): void;
}

/** What is on its way to one script. */
export interface Batch {
  readonly script: RedisScript;
  readonly keys: string[];
  readonly args: RedisArgument[];
  readonly orders: BatchedOrder[];
  readonly heard: (nowMs: number) => void;
}

/** Orders of one turn of the event loop that are for the same script, in one call of it. */
export interface RedisBatches {
  /**
   * The batch for what has the same `group`; undefined where there is none that has room. To be added to at once: an order's keys
   * and arguments, and the order itself.
   */
  find(group: string): Batch | undefined;
  /** Begins one, with the keys and arguments that all of its orders have in common. */
  begin(group: string, batch: Batch): Batch;
}

/** Redis does nothing else while a script runs, so that one must not run for long. */
const MOST_ORDERS = 64;

export function createRedisBatches(redis: Pick<Redis, "run">, guarded: Guarded): RedisBatches {
  const batches = new Map<string, Batch>();

  function send({ script, keys, args, orders, heard }: Batch): void {
    let wasSent = false;
    guarded(() => {
      wasSent = true;
      return redis.run(script, keys, args);
    }).then(
      (reply) => {
        const answers: readonly unknown[] = Array.isArray(reply) ? reply : [];
        const nowMs = Number(answers[0]);
        heard(nowMs);
        settle(orders, answers, nowMs);
      },
      (error: unknown) => {
        for (const order of orders) order.failed(error, wasSent);
      },
    );
  }

  function flush(): void {
    const all = [...batches.values()];
    batches.clear();
    for (const batch of all) send(batch);
  }

  return {
    find(group) {
      const batch = batches.get(group);
      if (batch === undefined || batch.orders.length < MOST_ORDERS) return batch;
      batches.delete(group);
      send(batch);
      return undefined;
    },
    begin(group, batch) {
      if (batches.size === 0) setImmediate(flush);
      batches.set(group, batch);
      return batch;
    },
  };
}

/** A word in place of the first answer is for all of them. */
function settle(orders: readonly BatchedOrder[], answers: readonly unknown[], nowMs: number): void {
  const forAll = typeof answers[1] === "string" ? answers[1] : undefined;
  let at = 1;
  for (const order of orders) {
    try {
      order.answered(forAll ?? answers[at++], nowMs);
    } catch (error) {
      order.failed(error, true);
    }
  }
}
