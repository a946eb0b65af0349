import type { Config, Environment } from "../config.ts";
import type { Mounted } from "../infra/call.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import { createGuarded, isCallersMistake } from "../infra/guarded.ts";
import { createHeardInstances } from "../infra/heard-instances.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import { isSlotMoving } from "../infra/redis-failure.ts";
import { createFallbackLimits } from "../ratelimit/fallback.ts";
import { createMemoryCounters } from "../ratelimit/memory.ts";
import { createLimitMetrics } from "../ratelimit/metrics.ts";
import type { RuleBook } from "../ratelimit/rule-book.ts";
import { createRateLimitService } from "../ratelimit/service.ts";
import { createSharedLimiter, type SharedLimiterOptions } from "../ratelimit/shared-limiter.ts";
import type { Coordination } from "./coordination.ts";
import { startRules } from "./ratelimit-rules.ts";
import type { Signals } from "./signals.ts";

export interface RateLimitParts extends Pick<Coordination, "redis" | "backplane" | "self"> {
  readonly config: Config;
  readonly environment: Environment;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly database: Pick<Database, "shared">;
  readonly signals: Pick<Signals, "onHangup">;
  /** What is added here is taken apart before the parts it stands on. */
  readonly parts: AsyncDisposableStack;
}

/** Rate limits over the counters of this topology. */
export async function startRateLimits(options: RateLimitParts): Promise<Mounted> {
  const { config, environment, metrics, redis, signals, parts } = options;
  const log = options.log.child({ component: "ratelimit" });
  const rules = startRules({ config, environment, log, signals, parts });
  const counting = await countersOf(options, rules);
  return createRateLimitService({
    limiter: createSharedLimiter({ ...counting, rules }),
    rules,
    metrics: createLimitMetrics(metrics, () => rules.all.length),
    layer: redis && "redis",
  });
}

async function countersOf(options: RateLimitParts, rules: RuleBook): Promise<Omit<SharedLimiterOptions, "rules">> {
  const { config, database, redis, backplane, self, parts } = options;
  const clock = systemClock;
  const local = createMemoryCounters({ clock });
  const nowUs = () => clock.now() * 1_000;
  const fallbackFor = (instances: () => number) => createFallbackLimits({ local, rules, instances, nowUs });
  if (redis !== undefined) {
    const { client, breaker, instances } = redis;
    const guarded = createGuarded(
      breaker,
      config.redis?.commandTimeoutMs ?? Number.POSITIVE_INFINITY,
      (error) => isCallersMistake(error) || isSlotMoving(error),
    );
    const { createRedisCounters } = await import("../ratelimit/redis.ts");
    return {
      shared: createRedisCounters({
        redis: { mode: client.mode, run: (...command) => guarded(() => client.run(...command)) },
      }),
      fallback: fallbackFor(() => instances.lastSeen),
      leftAlone: () => (breaker.state === "closed" ? undefined : breaker.retryAfterMs),
    };
  }
  if (!database.shared) return { shared: local, fallback: undefined, leftAlone: () => undefined };
  const heard = parts.adopt(createHeardInstances({ backplane, id: self.id }), (it) => it.close());
  return { shared: undefined, fallback: fallbackFor(() => heard.count), leftAlone: () => undefined };
}
