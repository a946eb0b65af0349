import type { RedisServer } from "../test/support/redis-server.ts";
import { until } from "../test/support/until.ts";
import { type Call, median, slice } from "./ratio.ts";
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
const CALM = { connections: 2, streams: 4 } as const;

export async function measureFrozen(
  side: Side,
  redis: RedisServer,
  call: Call,
  /** Runs into the timeout when Redis is frozen, and so opens the breaker. */
  opener: Call,
  sliceMs: number,
): Promise<FrozenFigures> {
  const calm = { ...call, ...CALM };
  const healthy: number[] = [];
  const frozen: number[] = [];
  let frozenMax = 0;
  await slice(side, calm, sliceMs);
  for (let i = 0; i < ROUNDS; i++) {
    await breakerIs(side, "closed");
    healthy.push((await slice(side, calm, sliceMs)).p99);
    redis.pause();
    try {
      await slice(side, { ...opener, ...CALM }, sliceMs);
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
