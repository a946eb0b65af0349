import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  AlertSchema,
  AuditHealthSchema,
  BreakerState,
  CacheHealthSchema,
  type ComponentHealth,
  ComponentHealthSchema,
  type HealthReport,
  HealthReportSchema,
  HealthState,
  RedisInfoSchema,
} from "../gen/holdfast/v1/health_pb.js";
import type { BreakerPosition, Observation, State } from "./component.ts";
import type { HealthSnapshot } from "./health.ts";

/** Who reports; fixed for the life of the process. */
export interface Identity {
  readonly instanceId: string;
  readonly topology: string;
  readonly version: string;
  /** Milliseconds since 1970. */
  readonly startTime: number;
}

export const states: Readonly<Record<State, HealthState>> = {
  healthy: HealthState.HEALTHY,
  degraded: HealthState.DEGRADED,
  unhealthy: HealthState.UNHEALTHY,
  not_configured: HealthState.NOT_CONFIGURED,
};

const breakerStates: Readonly<Record<BreakerPosition, BreakerState>> = {
  closed: BreakerState.CLOSED,
  open: BreakerState.OPEN,
  half_open: BreakerState.HALF_OPEN,
};

/** The snapshot in the words of the contract. */
export function toReport(snapshot: HealthSnapshot, identity: Identity): HealthReport {
  const { redis, cache, audit } = snapshot;
  return create(HealthReportSchema, {
    state: states[snapshot.state],
    components: snapshot.components.map(toComponent),
    ...(redis && {
      redis: create(RedisInfoSchema, {
        version: redis.version,
        connectedClients: redis.connectedClients,
        usedMemoryBytes: BigInt(redis.usedMemoryBytes),
        maxMemoryBytes: BigInt(redis.maxMemoryBytes),
        uptime: toDuration(redis.uptimeSeconds * 1000),
      }),
    }),
    cache: create(CacheHealthSchema, { ...cache, unhealedChanges: BigInt(cache.unhealedChanges) }),
    audit: create(AuditHealthSchema, {
      tiers: [...audit.tiers],
      queuedRecords: BigInt(audit.queuedRecords),
      ...(audit.lagMs !== undefined && { lag: toDuration(audit.lagMs) }),
      journalOnlyRecords: BigInt(audit.journalOnlyRecords),
      quarantinedRecords: BigInt(audit.quarantinedRecords),
      archiving: audit.archiving,
    }),
    alerts: snapshot.alerts.map(({ name, active, message, raiseTime, resolveTime }) =>
      create(AlertSchema, {
        name,
        active,
        message,
        raiseTime: toTimestamp(raiseTime),
        ...(resolveTime !== undefined && { resolveTime: toTimestamp(resolveTime) }),
      }),
    ),
    instanceId: identity.instanceId,
    instances: [...snapshot.instances],
    topology: identity.topology,
    version: identity.version,
    startTime: toTimestamp(identity.startTime),
  });
}

function toComponent(observation: Observation): ComponentHealth {
  const { name, kind, state, latencyMs, checkTime, lastError, breaker, message } = observation;
  return create(ComponentHealthSchema, {
    name,
    state: states[state],
    kind,
    ...(latencyMs !== undefined && { latency: toDuration(latencyMs) }),
    ...(checkTime !== undefined && { checkTime: toTimestamp(checkTime) }),
    ...(lastError && { lastError: lastError.message, lastErrorTime: toTimestamp(lastError.time) }),
    breaker: breaker === undefined ? BreakerState.UNSPECIFIED : breakerStates[breaker],
    message,
  });
}

function toDuration(ms: number): Duration {
  const seconds = Math.floor(ms / 1000);
  return create(DurationSchema, { seconds: BigInt(seconds), nanos: Math.floor((ms - seconds * 1000) * 1e6) });
}

function toTimestamp(ms: number): Timestamp {
  const seconds = Math.floor(ms / 1000);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: Math.floor((ms - seconds * 1000) * 1e6) });
}
