import { startRedis } from "../test/support/redis-server.ts";
import { measureFrozen } from "./frozen.ts";
import { type CheckCall, compare } from "./ratio.ts";
import type { Row } from "./report.ts";
import { benchYaml, OTHER_CORE, pin, startBare, startHoldfast } from "./sides.ts";

const CHECK = "rate limit: Check of a bucket, Redis";
const FROZEN = "rate limit: Check while Redis is frozen";
const CHECK_TARGET = 0.6;
const FROZEN_TARGET = 2;

export interface RateLimitCases {
  readonly rounds: number;
  readonly sliceMs: number;
  wanted(name: string): boolean;
  add(row: Row): void;
}

/** Rate limits: a Check beside a handler that counts nothing, and while Redis is frozen beside itself while it is well. */
export async function measureRateLimits({ rounds, sliceMs, wanted, add }: RateLimitCases): Promise<void> {
  if (!wanted(CHECK) && !wanted(FROZEN)) return;
  await using redis = await startRedis();
  pin(redis.pid, OTHER_CORE);
  await using bare = await startBare();
  await using side = await startHoldfast({
    HOLDFAST_CONFIG: benchYaml,
    REDIS_URL: redis.url,
    CIRCUIT_BREAKER_RESET_TIMEOUT: "1000",
  });
  const call: CheckCall = { path: "Check" };
  if (wanted(CHECK)) {
    process.stderr.write(`${CHECK} ...\n`);
    const { rate, cpu, rounds: done } = await compare(bare, side, call, { rounds, sliceMs });
    add({
      name: CHECK,
      figure: `${rate.toFixed(2)} x`,
      target: `${CHECK_TARGET} x`,
      reached: rate >= CHECK_TARGET,
      notes: `of the bare handler; ${cpu.toFixed(2)} x by processor time a call`,
      details: { rate, cpu, rounds: done },
    });
  }
  if (wanted(FROZEN)) {
    process.stderr.write(`${FROZEN} ...\n`);
    const figures = await measureFrozen(side, redis, call, call, sliceMs);
    const ratio = figures.frozenP99 / figures.healthyP99;
    add({
      name: FROZEN,
      figure: `p99 ${ratio.toFixed(2)} x healthy`,
      target: `at most ${FROZEN_TARGET} x`,
      reached: ratio <= FROZEN_TARGET,
      notes: `by its share; slowest of all ${figures.frozenMax.toFixed(1)} ms; none failed`,
      details: figures,
    });
  }
}
