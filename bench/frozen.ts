import type { RedisServer } from "../test/support/redis-server.ts";
import { until } from "../test/support/until.ts";
import { type CacheCall, median, slice } from "./ratio.ts";
import type { Side } from "./sides.ts";

/** How much slower a Get is while Redis is frozen and the breaker open: the p99 against the healthy one. */
export interface FrozenFigures {
  readonly healthyP99: number;
  readonly frozenP99: number;
  /** The worst over all frozen slices, failures to answer included: there are none, or the run would have failed. */
  readonly frozenMax: number;
}

const ROUNDS = 3;

/** Few calls at a time: what is measured is how long a call takes, not how long it queues. */
export async function measureFrozen(
  side: Side,
  redis: RedisServer,
  call: CacheCall,
  sliceMs: number,
): Promise<FrozenFigures> {
  const calm = { ...call, connections: 2, streams: 4 };
  const healthy: number[] = [];
  const frozen: number[] = [];
  let frozenMax = 0;
  await slice(side, calm, sliceMs);
  for (let i = 0; i < ROUNDS; i++) {
    await breakerIs(side, "closed");
    healthy.push((await slice(side, calm, sliceMs)).p99);
    redis.pause();
    try {
      // These run into the timeout and open the breaker.
      await slice(side, { ...calm, namespace: "beyond-memory" }, sliceMs);
      await breakerIs(side, "open");
      const one = await slice(side, calm, sliceMs);
      frozen.push(one.p99);
      frozenMax = Math.max(frozenMax, one.max);
    } finally {
      redis.resume();
    }
  }
  return { healthyP99: median(healthy), frozenP99: median(frozen), frozenMax };
}

async function breakerIs(side: Side, state: string): Promise<void> {
  await until(
    async () => {
      const page = await (await fetch(`http://127.0.0.1:${side.httpPort}/metrics`)).text();
      return page.includes(`holdfast_redis_breaker_state{state="${state}"} 1`);
    },
    { what: `the breaker to be ${state}`, timeoutMs: 60_000 },
  );
}
