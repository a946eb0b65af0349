import { setTimeout as delay } from "node:timers/promises";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { type CacheClient, CallFailed, createCacheClient } from "./cache-client.ts";
import { createRandom, type LoadContext, runLoad } from "./load-child.ts";

/** One client process that counts: on every key, through whichever instance, some of it twice under the same request id. */
export interface CountJob {
  readonly addresses: readonly string[];
  readonly namespace: string;
  readonly keys: readonly string[];
  readonly increments: number;
  readonly callers: number;
  readonly seed: number;
}

export interface CountReport {
  /** What this process has added to each key. */
  readonly added: ReadonlyMap<string, number>;
  readonly retries: number;
  /** Retries whose answer was not that of the first attempt. */
  readonly contradicted: readonly string[];
  /** Sums seen, by key: each increment that is not a retry must have seen one of its own. */
  readonly sums: ReadonlyMap<string, readonly bigint[]>;
  /** Calls that were told to come back, because the key changed too often under them. */
  readonly contended: number;
  readonly failures: readonly string[];
}

export function isCountReport(report: unknown): report is CountReport {
  return typeof report === "object" && report !== null && "added" in report && "sums" in report;
}

async function work(job: CountJob, context: LoadContext): Promise<CountReport> {
  const clients = job.addresses.map((address) => createCacheClient(address));
  const random = createRandom(job.seed);
  const added = new Map<string, number>(job.keys.map((key) => [key, 0]));
  const sums = new Map<string, bigint[]>(job.keys.map((key) => [key, []]));
  const contradicted: string[] = [];
  const failures: string[] = [];
  let retries = 0;
  let contended = 0;

  function any<T>(list: readonly T[]): T {
    const one = list[random(list.length)];
    if (one === undefined) throw new Error("nothing to choose from");
    return one;
  }

  /** Tries until it is not turned away for contention: that is what the contract asks of callers. */
  async function increment(client: CacheClient, key: string, requestId: string): Promise<bigint> {
    for (;;) {
      try {
        const { reply } = await client.call(CacheService.method.increment, {
          namespace: job.namespace,
          key,
          requestId,
        });
        return reply.value;
      } catch (error) {
        if (!(error instanceof CallFailed) || error.code !== "ABORTED") throw error;
        contended++;
        await delay(10 + random(40));
      }
    }
  }

  async function count(caller: number): Promise<void> {
    for (let turn = 0; turn < job.increments / job.callers; turn++) {
      const key = any(job.keys);
      const twice = random(3) === 0;
      const requestId = twice ? `${process.pid}-${caller}-${turn}` : "";
      try {
        // Both at once now and then: a retry may overtake the attempt it repeats.
        const attempts = [increment(any(clients), key, requestId)];
        if (!twice || random(2) === 0) await attempts[0];
        if (twice) attempts.push(increment(any(clients), key, requestId));
        const [first = 0n, second = first] = await Promise.all(attempts);
        added.set(key, (added.get(key) ?? 0) + 1);
        sums.get(key)?.push(first);
        if (twice) retries++;
        if (first !== second) contradicted.push(`${key}: ${first}, then ${second}`);
      } catch (error) {
        failures.push(String(error));
      }
    }
  }

  context.tell("ready");
  while (!context.stopping) await delay(5);
  await Promise.all(Array.from({ length: job.callers }, (_, caller) => count(caller)));
  return { added, retries, contradicted, sums, contended, failures };
}

if (import.meta.main) await runLoad((job, context) => work(job as CountJob, context));
