import { RequestIdReusedError } from "../infra/named-request.ts";
import type { Redis } from "../infra/redis.ts";
import { isSlotMoving } from "../infra/redis-failure.ts";
import type { Ask, Verdict } from "./counters.ts";
import { checkScript, severalChecksScript } from "./redis-scripts.ts";
import { addLimits, readRemembered, readVerdict, verdictLength } from "./redis-wire.ts";

/** One call of Check or Peek. */
export interface CheckCall {
  readonly asks: readonly Ask[];
  /** The counters of what is asked, in order. */
  readonly keys: readonly string[];
  /** As the script has it. */
  readonly mode: string;
  /** Where the answer is remembered, what the request means, and for how long. */
  readonly memory:
    | { readonly key: string; readonly id: string; readonly meaning: string; readonly ms: number }
    | undefined;
}

/** Calls of one turn of the event loop, in one round trip: each is still decided by itself. */
export interface Checks {
  /** Calls of one group may share a script: their keys are in one slot. */
  add(group: string, call: CheckCall): Promise<Verdict>;
}

interface Waiting {
  readonly call: CheckCall;
  readonly resolve: (verdict: Verdict) => void;
  readonly reject: (error: unknown) => void;
}

interface Batch {
  readonly keys: string[];
  readonly args: (string | number)[];
  readonly waiting: Waiting[];
}

/** Redis does nothing else while a script runs, so that one must not run for long. */
const MOST_KEYS = 128;

export function createChecks(redis: Pick<Redis, "run">, time: () => string): Checks {
  const batches = new Map<string, Batch>();

  function send({ keys, args, waiting }: Batch): void {
    const isOne = waiting.length === 1;
    redis
      .run(isOne ? checkScript : severalChecksScript, keys, args)
      .then((reply) => settle(waiting, reply))
      .catch((error: unknown) => {
        // The keys of one call may be on one node, where those of all are not.
        const mayGoAlone = !isOne && isSlotMoving(error);
        for (const one of waiting) {
          if (mayGoAlone) sendAlone(one);
          else one.reject(error);
        }
      });
  }

  function sendAlone(one: Waiting): void {
    const batch = { keys: [], args: [time()], waiting: [one] };
    write(batch, one.call);
    send(batch);
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
      write(batch, call);
      const { waiting } = batch;
      return new Promise((resolve, reject) => {
        waiting.push({ call, resolve, reject });
      });
    },
  };
}

function write({ keys, args }: Batch, { asks, keys: counters, mode, memory }: CheckCall): void {
  const head = `${mode}${asks.length}`;
  if (memory === undefined) {
    args.push(head);
  } else {
    args.push(`r${head}`, memory.meaning, memory.ms);
    keys.push(memory.key);
  }
  for (const counter of counters) keys.push(counter);
  addLimits(args, asks);
}

function settle(waiting: readonly Waiting[], reply: unknown): void {
  if (!Array.isArray(reply)) throw new TypeError("the script did not answer with a list");
  let at = 0;
  for (const { call, resolve, reject } of waiting) {
    const { asks, memory } = call;
    if (memory === undefined) {
      resolve(readVerdict(reply, at, asks));
      at += verdictLength(asks.length);
      continue;
    }
    const text = String(reply[at++]);
    if (text === "reused") reject(new RequestIdReusedError(memory.id));
    else resolve(readRemembered(text));
  }
}
