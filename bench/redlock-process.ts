import { Redis } from "ioredis";
import Redlock, { type Client } from "redlock";
import { type HandOverResult, handOvers, type Locking } from "./hand-overs.ts";
import type { PairResult } from "./lock-load-process.ts";

/** `node redlock-process.ts '{"url":...}'`: the baseline of locks, node-redlock in the process of its callers, on one Redis. */
export type RedlockOrder = {
  readonly url: string;
  readonly callers: number;
  readonly durationMs: number;
  /** Of one lock that all of them want. Undefined: each has a lock of its own. */
  readonly workMs?: number;
};

const TTL_MS = 30_000;

const order = JSON.parse(process.argv[2] ?? "{}") as RedlockOrder;
const redis = new Redis(order.url);
await redis.ping();
// Its own types are those of an older ioredis.
const client = redis as unknown as Client;
const result = order.workMs === undefined ? await pairs() : await contended(order.workMs);
redis.disconnect();
process.stdout.write(`${JSON.stringify(result)}\n`);

async function pairs(): Promise<PairResult> {
  const redlock = new Redlock([client], {}, {});
  const before = process.cpuUsage();
  const begun = performance.now();
  const until = begun + order.durationMs;
  let done = 0;
  await Promise.all(
    Array.from({ length: order.callers }, async (_, n) => {
      while (performance.now() < until) {
        const lock = await redlock.acquire([`bench/${n}`], TTL_MS);
        await lock.release();
        done++;
      }
    }),
  );
  const seconds = (performance.now() - begun) / 1000;
  const { user, system } = process.cpuUsage(before);
  return { pairs: done, seconds, cpuMs: (user + system) / 1000 };
}

/** With its defaults, but for giving up: it asks every 200 ms, give or take 100. */
function contended(workMs: number): Promise<HandOverResult> {
  const lockings = Array.from({ length: order.callers }, (): Locking => {
    const redlock = new Redlock([client], { retryCount: -1 }, {});
    return async () => {
      const lock = await redlock.acquire(["bench/contended"], TTL_MS);
      return async () => void (await lock.release());
    };
  });
  return handOvers(lockings, workMs, order.durationMs);
}
