import type { Config } from "../config.ts";
import { type AlertSink, truthShared } from "../health/alerts.ts";
import type { Component } from "../health/component.ts";
import { type AuditHealthNumbers, type CacheHealthNumbers, createHealth, type Health } from "../health/health.ts";
import type { Backplane } from "../infra/backplane.ts";
import type { Breaker } from "../infra/breaker.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import { type Instance, type Instances, strangers } from "../infra/instances.ts";
import type { Log } from "../infra/log.ts";
import type { ObservedDatabase } from "../infra/observed-database.ts";
import type { Redis } from "../infra/redis.ts";
import type { RunningLocks } from "./lock.ts";

export interface HealthParts {
  readonly config: Config;
  readonly log: Log;
  readonly self: Instance;
  readonly database: Database;
  /** Calls the listener whenever a call failed because SQL is away. */
  readonly onSqlUnavailable: ObservedDatabase["onUnavailable"];
  readonly redis: { readonly client: Redis; readonly breaker: Breaker; readonly instances: Instances } | undefined;
  readonly backplane: Backplane;
  readonly cacheHealth: () => CacheHealthNumbers;
  readonly audit: { readonly health: () => AuditHealthNumbers; readonly journal: Component };
  readonly locks: Pick<RunningLocks, "health" | "onMastersChange">;
}

/** Health over the parts that this topology has; starts checking at once. */
export function startHealth(parts: HealthParts): Health {
  const { config, log, self, database, redis, backplane, cacheHealth, audit, locks } = parts;
  const strangerIds = () => strangers(redis?.instances.current ?? [], self).map(({ id }) => id);
  const health = createHealth({
    components: [sqlOf(database, strangerIds), redisOf(redis), backplaneOf(backplane), audit.journal, locks.health],
    cacheHealth,
    auditHealth: audit.health,
    redisFailures: () => redis?.breaker.consecutiveFailures ?? 0,
    instances: () => ({ all: (redis?.instances.current ?? [self]).map(({ id }) => id), strangers: strangerIds() }),
    checkIntervalMs: config.health.checkIntervalMs,
    sinks: [logSink(log)],
    clock: systemClock,
  });
  parts.onSqlUnavailable(health.suspect);
  backplane.onGap(health.changed);
  redis?.breaker.onStateChange(health.changed);
  redis?.instances.onChange(health.changed);
  redis?.client.onConnected(health.changed);
  locks.onMastersChange(health.changed);
  void health.checkNow();
  return health;
}

function sqlOf(database: Database, strangerIds: () => readonly string[]): Component {
  return {
    name: "sql",
    kind: database.kind,
    check: async () => {
      await database.ping();
      const others = strangerIds();
      return others.length > 0 ? { degraded: truthShared(others) } : undefined;
    },
    whenUnwell: "calls that need durable data fail, what is cached is still served",
  };
}

function redisOf(redis: HealthParts["redis"]): Component {
  if (!redis) return { name: "redis", kind: "", whenUnwell: "" };
  const { client, breaker } = redis;
  return {
    name: "redis",
    kind: client.mode === "single" ? "redis" : `redis ${client.mode}`,
    check: async () => {
      await client.ping();
      return { redis: await client.info() };
    },
    breaker: () => breaker.state,
    lastError: () => breaker.lastError,
    whenUnwell:
      "SQL answers in its place, slower, and what changes meanwhile is healed when it is back; rate limits go by their fallbacks",
  };
}

function backplaneOf(backplane: Backplane): Component {
  return {
    name: "backplane",
    kind: backplane.kind,
    check: async () => {
      if (!backplane.live) throw new Error("messages of other instances do not arrive");
      return undefined;
    },
    whenUnwell: "this instance asks the shared layer before it trusts its own memory",
  };
}

function logSink(log: Log): AlertSink {
  return ({ name, active, message }) => {
    if (active) log.warn({ alert: name, active }, message);
    else log.info({ alert: name, active }, `resolved: ${message}`);
  };
}
