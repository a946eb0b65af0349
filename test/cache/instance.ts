import { type Cache, createCache } from "../../src/cache/cache.ts";
import type { Announcer } from "../../src/cache/change.ts";
import type { Namespace } from "../../src/cache/namespace.ts";
import type { NamespacePolicy } from "../../src/cache/policy.ts";
import type { Found } from "../../src/cache/reads.ts";
import { createVersions } from "../../src/cache/version.ts";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import type { CallContext } from "../../src/infra/call.ts";
import { type CircuitBreaker, createBreaker } from "../../src/infra/circuit-breaker.ts";
import { type Clock, systemClock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { createFences } from "../../src/infra/fences.ts";
import type { Fences } from "../../src/infra/fencing.ts";
import { createLog, type Log } from "../../src/infra/log.ts";
import { createRedis, parseRedisUrl, type Redis } from "../../src/infra/redis.ts";
import { createLayers, type Layers } from "../../src/main/cache-layers.ts";

export const POLICY: NamespacePolicy = {
  ttlMs: undefined,
  // Memory would hide what the layers below it say.
  l1TtlMs: 0,
  jitter: 0,
  staleForMs: 60_000,
  eagerRefresh: undefined,
  durable: false,
  maxBytes: 1_000_000,
  warm: [],
};

export const silent = createLog({ level: "silent" });
export const announcer: Announcer = (kind, namespace, subject) => ({
  channel: "instance-test",
  before: `${kind} `,
  after: ` ${JSON.stringify([namespace, subject])}`,
});

export function openRedis(url: string, commandTimeoutMs: number): Redis {
  const parsed = parseRedisUrl(url);
  if (typeof parsed === "string") throw new Error(parsed);
  return createRedis({ mode: "single", nodes: [], connectTimeoutMs: 1_000, ...parsed, commandTimeoutMs });
}

/** For layers under which no test writes under a lock. */
export const noFences: Fences = {
  admit: () => Promise.reject(new Error("a fence was asked for")),
  raise: () => Promise.reject(new Error("a fence was asked for")),
};

/** A call of somebody who may do everything. */
export function callOf(rpc: string): CallContext {
  return {
    method: `holdfast.v1.CacheService/${rpc}`,
    caller: { name: "test", hasScope: () => true, mayUse: () => true },
    deadline: undefined,
    signal: AbortSignal.timeout(60_000),
    interruption: undefined,
    servedBy: () => {},
    degraded: () => {},
  };
}

export interface InstanceOptions {
  readonly redisUrl: string;
  readonly database: Database;
  readonly policy?: Partial<NamespacePolicy>;
  readonly failureThreshold?: number;
  readonly timeoutMs?: number;
  /** The newest tokens that were granted, by lock: what instances would be told by who decides about locks. */
  readonly granted?: ReadonlyMap<string, number>;
  /** Of the cache; Redis keeps its own. */
  readonly clock?: Clock;
  readonly log?: Log;
}

/** The cache of one instance over real layers, with the calls that tests make most. Its breaker is only tried when told to. */
export interface Instance extends AsyncDisposable {
  readonly cache: Cache;
  readonly layers: Layers;
  readonly breaker: CircuitBreaker;
  readonly redis: Redis;
  readonly namespace: Namespace;
  /** How often SQL knew nothing newer than the token of a write. */
  readonly raises: number;
  get(key: string): Promise<Found>;
  /** The text a caller would be given; undefined for a miss. */
  value(key: string): Promise<string | undefined>;
  /** Whether it was degraded. */
  set(key: string, text: string, tags?: readonly string[]): Promise<boolean>;
  remove(key: string): Promise<boolean>;
  add(key: string, delta?: bigint): Promise<bigint>;
  invalidate(tags: readonly string[]): Promise<boolean>;
}

export async function startInstance(options: InstanceOptions): Promise<Instance> {
  const { redisUrl, database, failureThreshold = 3, timeoutMs = 500, clock = systemClock, log = silent } = options;
  const versions = createVersions(clock);
  const policy = { ...POLICY, ...options.policy };
  const { granted = new Map<string, number>() } = options;
  const asked = createFences({ database, lastTokenOf: async (lock) => granted.get(lock) ?? 0, clock });
  let raises = 0;
  const fences: Fences = {
    admit: asked.admit,
    async raise(fence) {
      await asked.raise(fence);
      raises++;
    },
  };
  const redis = openRedis(redisUrl, timeoutMs);
  const breaker = createBreaker({
    failureThreshold,
    resetTimeoutMs: 1_000_000,
    halfOpenMaxCalls: 1,
    probe: async () => {
      await redis.ping();
    },
    clock,
  });
  const layers = await createLayers({
    database,
    redis: { client: redis, breaker, timeoutMs },
    announcer,
    policyFor: () => policy,
    versions,
    fences,
    clock,
    log,
  });
  const cache = createCache({
    storeOf: layers.storeOf,
    policyFor: () => policy,
    backplane: createLocalBackplane(),
    versions,
    fences,
    l1: { maxBytes: 10_000_000, maxItems: undefined },
    clock,
    random: () => 0,
    log,
  });
  const namespace = cache.namespaces.get("test");

  return {
    get raises() {
      return raises;
    },
    cache,
    layers,
    breaker,
    redis,
    namespace,
    get: (key) => cache.reads.get(namespace, key, false),
    async value(key) {
      const { record } = await cache.reads.get(namespace, key, false);
      return record === undefined ? undefined : String(record.value.data);
    },
    async set(key, text, tags = []) {
      const value = { data: text, contentType: "" };
      const order = { key, value, expiry: "never", tags, ifAbsent: false, leaseToken: "" } as const;
      const [answer] = await cache.set(namespace, [order]);
      if (answer?.outcome !== "stored") throw new Error(`not stored: ${answer?.outcome}`);
      return answer.degraded;
    },
    async remove(key) {
      const [answer] = await cache.remove(namespace, [key]);
      return answer?.degraded ?? false;
    },
    async add(key, delta = 1n) {
      const order = { delta, initial: 0n, expiry: "never", requestId: "" } as const;
      return (await cache.increment(namespace, key, order)).value;
    },
    invalidate: async (tags) => (await cache.invalidate(namespace, tags)).degraded,
    async [Symbol.asyncDispose]() {
      cache.close();
      await layers.close();
      breaker.close();
      await redis.close();
    },
  };
}
