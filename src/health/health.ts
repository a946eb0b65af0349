import type { Clock } from "../infra/clock.ts";
import { redact } from "../infra/log.ts";
import { type Alert, type AlertSink, createAlerts } from "./alerts.ts";
import {
  type Checked,
  type Component,
  type Fault,
  type Observation,
  observe,
  overall,
  type RedisNumbers,
} from "./component.ts";

/** How the cache does, as the cache counts it. */
export interface CacheHealthNumbers {
  /** Share of reads answered from memory, 0 to 1. */
  readonly l1HitRate: number;
  /** Share of the reads that missed memory and were answered by Redis, 0 to 1. */
  readonly l2HitRate: number;
  /** Share of the calls of the last minute that a lower layer answered because Redis could not, 0 to 1. */
  readonly fallbackRate: number;
  /** Changes made while Redis was away that are not yet healed. */
  readonly unhealedChanges: number;
}

/** How the audit log does, as it counts it. */
export interface AuditHealthNumbers {
  /** Where a record that is appended now goes. */
  readonly tiers: readonly string[];
  readonly queuedRecords: number;
  /** How long the oldest of them has waited, in milliseconds. */
  readonly lagMs: number | undefined;
  /** Records on this instance's disk alone. */
  readonly journalOnlyRecords: number;
  readonly quarantinedRecords: number;
  /** Whether this instance is the archiver. */
  readonly archiving: boolean;
}

export interface HealthOptions {
  readonly components: readonly Component[];
  readonly cacheHealth: () => CacheHealthNumbers;
  readonly auditHealth: () => AuditHealthNumbers;
  /** Redis failures in a row that calls ran into. */
  readonly redisFailures: () => number;
  /** Ids of the instances that share this Redis, sorted; and of those among them that hold another SQL truth. */
  readonly instances: () => { readonly all: readonly string[]; readonly strangers: readonly string[] };
  readonly checkIntervalMs: number;
  /** How often to check while not all is well, if that is more often. Default 3 s. */
  readonly recheckIntervalMs?: number;
  /** The least time from one check to one that a failed call asks for. Default 1 s. */
  readonly suspicionIntervalMs?: number;
  /** How long a check may take before the component counts as unwell. Default 5 s. */
  readonly checkTimeoutMs?: number;
  readonly sinks: readonly AlertSink[];
  readonly clock: Clock;
}

export interface HealthSnapshot {
  readonly state: "healthy" | "degraded" | "unhealthy";
  /** Sorted by name. */
  readonly components: readonly Observation[];
  readonly redis: RedisNumbers | undefined;
  readonly cache: CacheHealthNumbers;
  readonly audit: AuditHealthNumbers;
  readonly alerts: readonly Alert[];
  readonly instances: readonly string[];
}

export interface Health {
  /** What is known now. Asks nobody. */
  snapshot(): HealthSnapshot;
  /** Checks every component now, or joins the check under way. Never rejects. */
  checkNow(): Promise<void>;
  /** Something changed by itself (a breaker, a backplane, an instance): look again, and check at once. */
  changed(): void;
  /** A call ran into a failure: check at once, unless a check has just begun; then soon. Cheap enough for every failure. */
  suspect(): void;
  /** Called when a state or an alert changed. Returns the removal. */
  onChange(listener: () => void): () => void;
  close(): void;
}

/** Checks the components from time to time and at once when something changed, and raises and resolves alerts. */
export function createHealth(options: HealthOptions): Health {
  const {
    clock,
    checkIntervalMs,
    checkTimeoutMs = 5000,
    recheckIntervalMs = 3000,
    suspicionIntervalMs = 1000,
  } = options;
  const components = options.components.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const checks = new Map<Component, Checked>();
  const failures = new Map<Component, Fault>();
  const failedInRow = new Map<Component, number>();
  const underWay = new Map<Component, Promise<void>>();
  const alerts = createAlerts(options.sinks);
  const listeners = new Set<() => void>();
  let lastStates = "";
  let again = false;
  let suspected = false;
  let checking: Promise<void> | undefined;
  let closed = false;
  let timer: NodeJS.Timeout | undefined;
  let dueAt = Number.POSITIVE_INFINITY;
  let checkedAt = Number.NEGATIVE_INFINITY;

  async function check(component: Component): Promise<void> {
    if (!component.check) return;
    const start = clock.monotonic();
    const done = (outcome: Pick<Checked, "failure" | "finding">) => {
      const time = clock.now();
      checks.set(component, { time, latencyMs: clock.monotonic() - start, ...outcome });
      failedInRow.set(component, outcome.failure === undefined ? 0 : (failedInRow.get(component) ?? 0) + 1);
      if (outcome.failure !== undefined) failures.set(component, { message: outcome.failure, time });
    };
    try {
      done({ failure: undefined, finding: await component.check() });
    } catch (error) {
      done({ failure: redact(error instanceof Error ? error.message : String(error)), finding: undefined });
    }
  }

  // A check that hangs is given up for this round, and not asked a second time until it has ended: a frozen database must not
  // be met with a growing pile of questions.
  async function checkWithin(component: Component): Promise<void> {
    const running = underWay.get(component) ?? check(component).finally(() => underWay.delete(component));
    underWay.set(component, running);
    const { promise: overdue, resolve } = Promise.withResolvers<"overdue">();
    const timer = setTimeout(() => resolve("overdue"), checkTimeoutMs);
    if ((await Promise.race([running, overdue])) === "overdue") {
      const failure = `no answer within ${checkTimeoutMs} ms`;
      checks.set(component, { time: clock.now(), latencyMs: checkTimeoutMs, failure, finding: undefined });
      failures.set(component, { message: failure, time: clock.now() });
      failedInRow.set(component, (failedInRow.get(component) ?? 0) + 1);
    }
    clearTimeout(timer);
    evaluate();
  }

  async function checkAll(): Promise<void> {
    await Promise.all(components.map(checkWithin));
  }

  function observations(): readonly Observation[] {
    return components.map((component) => observe(component, checks.get(component), failures.get(component)));
  }

  function evaluate(): void {
    // What the parts say while they are taken apart is no news.
    if (closed) return;
    const found = observations();
    const { strangers } = options.instances();
    const redis = components.find(({ name }) => name === "redis");
    const unhealthy = overall(found) === "unhealthy";
    const vitals = {
      redisFailures: options.redisFailures() + (redis ? (failedInRow.get(redis) ?? 0) : 0),
      redisAvoided: (redis?.breaker?.() ?? "closed") !== "closed",
      fallbackRate: options.cacheHealth().fallbackRate,
      journalOnly: options.auditHealth().journalOnlyRecords,
      unhealthy,
      because: found
        .flatMap(({ name, state, message }) => (state === "unhealthy" ? `${name}: ${message}` : []))
        .join("; "),
      strangers,
    };
    const alertsChanged = alerts.update(vitals, clock.now());
    const states = JSON.stringify([found.map(({ state, breaker, message }) => [state, breaker, message]), strangers]);
    if (states === lastStates && !alertsChanged) return;
    lastStates = states;
    for (const listener of listeners) listener();
  }

  function checkNow(): Promise<void> {
    if (closed) return Promise.resolve();
    if (checking) return checking;
    checkedAt = clock.monotonic();
    checking = checkAll().finally(() => {
      checking = undefined;
      plan();
      if (suspected) checkSoon();
      // What changed during a check may have come too late for it.
      if (again) void checkNow();
      again = false;
    });
    return checking;
  }

  function plan(): void {
    const well = overall(observations()) === "healthy";
    dueAt = Number.POSITIVE_INFINITY;
    checkIn(well ? checkIntervalMs : Math.min(checkIntervalMs, recheckIntervalMs));
  }

  /** Checks after so long, or earlier where that is planned. */
  function checkIn(ms: number): void {
    const at = clock.monotonic() + ms;
    if (closed || at >= dueAt) return;
    clearTimeout(timer);
    dueAt = at;
    timer = setTimeout(() => void checkNow(), ms).unref();
  }

  function checkSoon(): void {
    suspected = false;
    checkIn(Math.max(0, checkedAt + suspicionIntervalMs - clock.monotonic()));
  }

  plan();

  return {
    snapshot() {
      const components = observations();
      const redis = [...checks.values()].findLast(({ finding }) => finding?.redis)?.finding?.redis;
      return {
        state: overall(components),
        components,
        redis,
        cache: options.cacheHealth(),
        audit: options.auditHealth(),
        alerts: alerts.list(clock.now()),
        instances: options.instances().all,
      };
    },
    checkNow,
    changed() {
      evaluate();
      if (checking) again = true;
      else void checkNow();
    },
    suspect() {
      // The check under way may have passed before the failure.
      if (checking) suspected = true;
      else checkSoon();
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      closed = true;
      clearTimeout(timer);
      listeners.clear();
    },
  };
}
