import type { Breaker } from "../infra/breaker.ts";
import type { Metrics } from "../infra/metrics.ts";
import type { Cache } from "./cache.ts";
import type { NamespaceTotals } from "./namespace.ts";

/** How the cache is used: for the metrics page and for health. */
export interface Usage {
  health(): {
    readonly l1HitRate: number;
    readonly l2HitRate: number;
    /** Over the last minute. */
    readonly fallbackRate: number;
    readonly unhealedChanges: number;
  };
  close(): void;
}

export interface UsageOptions {
  readonly cache: Cache;
  readonly metrics: Metrics;
  readonly unhealed: () => Promise<number>;
  readonly breaker: Breaker | undefined;
}

const SAMPLE_MS = 5_000;
const SAMPLES = 12;
const STATES = ["closed", "open", "half_open"] as const;

export function createUsage({ cache, metrics, unhealed, breaker }: UsageOptions): Usage {
  const { namespaces, l1, feed } = cache;
  const samples: { calls: number; fallbacks: number }[] = [];
  let unhealedChanges = 0;
  let asking = false;

  const reads = metrics.counter("holdfast_cache_reads_total", "Cache reads by where they were answered", ["layer"]);
  const writes = metrics.counter("holdfast_cache_writes_total", "Cache entries stored or deleted", ["kind"]);
  const fallbacks = metrics.counter(
    "holdfast_cache_fallbacks_total",
    "Cache calls that a lower layer answered for Redis",
  );
  const leases = metrics.counter("holdfast_cache_leases_total", "Leases given to fill a missing key");
  const l1Bytes = metrics.gauge("holdfast_cache_l1_bytes", "Bytes held in memory");
  const l1Entries = metrics.gauge("holdfast_cache_l1_entries", "Entries held in memory");
  const l1Evictions = metrics.counter("holdfast_cache_l1_evictions_total", "Entries dropped from memory to make room");
  const watchers = metrics.gauge("holdfast_cache_watchers", "Open Watch streams");
  const leaseWaiters = metrics.gauge(
    "holdfast_cache_lease_waiters",
    "Reads that wait for a value another caller has a lease to fill",
  );
  const pending = metrics.gauge("holdfast_cache_unhealed_changes", "Changes that Redis has not heard of yet");
  const breakerState = metrics.gauge("holdfast_redis_breaker_state", "1 for the state the Redis breaker is in", [
    "state",
  ]);
  const breakerFailures = metrics.counter("holdfast_redis_failures_total", "Calls to Redis that failed or timed out");

  const counted = new Map<object, number>();
  /** Metric counters only go up; the sums they follow do, too. */
  function follow(counter: { inc(by?: number): void }, total: number): void {
    const before = counted.get(counter) ?? 0;
    if (total > before) counter.inc(total - before);
    counted.set(counter, Math.max(total, before));
  }

  metrics.beforeScrape(() => {
    const sums = namespaces.totals();
    follow(reads.with({ layer: "l1" }), sums.l1Hits);
    follow(reads.with({ layer: "redis" }), sums.redisHits);
    follow(reads.with({ layer: "sql" }), sums.sqlHits);
    follow(reads.with({ layer: "stale" }), sums.staleHits);
    follow(reads.with({ layer: "miss" }), sums.misses);
    follow(writes.with({ kind: "set" }), sums.writes);
    follow(writes.with({ kind: "delete" }), sums.deletes);
    follow(writes.with({ kind: "invalidate" }), sums.invalidations);
    follow(fallbacks.with({}), sums.fallbacks);
    follow(leases.with({}), sums.leases);
    follow(l1Evictions.with({}), sums.l1Evictions);
    l1Bytes.with({}).set(l1.bytes);
    l1Entries.with({}).set(l1.entries);
    watchers.with({}).set(feed.watchers);
    leaseWaiters.with({}).set(cache.leaseWaiters);
    pending.with({}).set(unhealedChanges);
    if (breaker === undefined) return;
    for (const state of STATES) breakerState.with({ state }).set(breaker.state === state ? 1 : 0);
    follow(breakerFailures.with({}), breaker.totalFailures);
  });

  function sample(): void {
    const sums = namespaces.totals();
    samples.push({ calls: callsOf(sums), fallbacks: sums.fallbacks });
    if (samples.length > SAMPLES) samples.shift();
    if (asking) return;
    asking = true;
    unhealed()
      .then(
        (count) => {
          unhealedChanges = count;
        },
        // SQL is away: its own health check says so, and the last number stands.
        () => {},
      )
      .finally(() => {
        asking = false;
      });
  }

  sample();
  const timer = setInterval(sample, SAMPLE_MS).unref();

  return {
    health() {
      const sums = namespaces.totals();
      const calls = readsOf(sums);
      const beyond = calls - sums.l1Hits;
      const [first] = samples;
      const recent = callsOf(sums) - (first?.calls ?? 0);
      return {
        l1HitRate: calls === 0 ? 0 : sums.l1Hits / calls,
        l2HitRate: beyond === 0 ? 0 : sums.redisHits / beyond,
        fallbackRate: recent === 0 ? 0 : Math.min(1, (sums.fallbacks - (first?.fallbacks ?? 0)) / recent),
        unhealedChanges,
      };
    },
    close: () => clearInterval(timer),
  };
}

function readsOf(sums: NamespaceTotals): number {
  return sums.l1Hits + sums.redisHits + sums.sqlHits + sums.staleHits + sums.misses;
}

function callsOf(sums: NamespaceTotals): number {
  return readsOf(sums) + sums.writes + sums.deletes + sums.invalidations;
}
