import { type Cache, createCache } from "../cache/cache.ts";
import { type Announcer, CACHE_TOPIC, changeHead, changeTail } from "../cache/change.ts";
import { createUsage } from "../cache/metrics.ts";
import { createPolicyFor } from "../cache/policy.ts";
import { createCacheService } from "../cache/service.ts";
import { createVersions } from "../cache/version.ts";
import type { Config } from "../config.ts";
import type { CacheHealthNumbers } from "../health/health.ts";
import type { Frame } from "../infra/backplane-frame.ts";
import type { Mounted } from "../infra/call.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import type { Fences } from "../infra/fencing.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import { createLayers, type Layers } from "./cache-layers.ts";
import type { Coordination } from "./coordination.ts";

export interface CacheParts extends Pick<Coordination, "redis" | "backplane" | "frame"> {
  readonly config: Config;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly database: Database;
  readonly fences: Fences;
  /** What is added here is taken apart before the parts it stands on. */
  readonly parts: AsyncDisposableStack;
}

export interface RunningCache {
  readonly services: readonly Mounted[];
  readonly health: () => CacheHealthNumbers;
  readonly endWaiting: () => void;
}

/** The cache over the layers of this topology. */
export async function startCache(options: CacheParts): Promise<RunningCache> {
  const { config, log, metrics, database, redis, backplane, frame, fences, parts } = options;
  const clock = systemClock;
  const versions = createVersions(clock);
  const policyFor = createPolicyFor(config.cache.policies);
  const layers = parts.adopt(
    await createLayers({
      database,
      redis: redis && {
        client: redis.client,
        breaker: redis.breaker,
        timeoutMs: config.redis?.commandTimeoutMs ?? Number.POSITIVE_INFINITY,
      },
      announcer: frame && announcerOf(frame),
      policyFor,
      versions,
      fences,
      clock,
      log: log.child({ component: "cache" }),
    }),
    (it: Layers) => it.close(),
  );
  const cache = parts.adopt(
    createCache({
      storeOf: layers.storeOf,
      policyFor,
      backplane,
      versions,
      fences,
      l1: config.cache.l1,
      clock,
      random: Math.random,
      log: log.child({ component: "cache" }),
    }),
    (it: Cache) => it.close(),
  );
  const usage = parts.adopt(createUsage({ cache, metrics, unhealed: layers.unhealed, breaker: redis?.breaker }), (it) =>
    it.close(),
  );
  warmAll(cache, config);
  const services = [createCacheService({ cache, instanceId: config.instanceId })];
  return { services, health: usage.health, endWaiting: cache.endWaiting };
}

/** Frames are made once for each kind of change; what differs is appended. */
function announcerOf(frame: (topic: string, message: string) => Frame): Announcer {
  const frames = new Map<string, Frame>();
  return (kind, namespace, subject) => {
    let made = frames.get(kind);
    if (made === undefined) {
      made = frame(CACHE_TOPIC, changeHead(kind));
      frames.set(kind, made);
    }
    return { channel: made.channel, before: made.payload, after: changeTail(namespace, subject) };
  };
}

/** Only namespaces named in full: which ones a prefix stands for is not known before they are used. */
function warmAll(cache: Cache, config: Config): void {
  for (const [name, policy] of Object.entries(config.cache.policies.namespaces)) {
    if (name.endsWith("*") || policy.warm.length === 0) continue;
    cache.warmer.warmInBackground(cache.namespaces.get(name), policy.warm);
  }
}
