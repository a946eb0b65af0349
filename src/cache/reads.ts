import type { ServedBy } from "../infra/call.ts";
import { createChurnTable } from "../infra/churn-table.ts";
import type { Clock } from "../infra/clock.ts";
import { UnavailableError } from "../infra/failure.ts";
import type { Arrivals } from "./arrivals.ts";
import { isDue } from "./expiry.ts";
import type { Held, L1, Pending } from "./l1.ts";
import { type GrantedLease, newToken } from "./lease.ts";
import type { Namespace } from "./namespace.ts";
import { portions } from "./portions.ts";
import { type CacheRecord, isFresh, isServable } from "./record.ts";
import type { CacheStore, ReadResult } from "./store.ts";
import type { Versions } from "./version.ts";

/** How a read ended. `record` is set unless it is a miss. */
export interface Found {
  readonly outcome: "hit" | "stale" | "miss";
  readonly record: CacheRecord | undefined;
  /** The copy in memory, when there is one of this very record. */
  readonly held: Held | undefined;
  /** The version of whatever the layers hold for the key, dead or alive. */
  readonly seen: number;
  readonly layer: ServedBy;
  readonly degraded: boolean;
  readonly lease?: GrantedLease;
}

export interface LeaseWish {
  readonly ttlMs: number;
  /** How long to wait for another holder. */
  readonly waitMs: number;
  readonly signal: AbortSignal;
}

export interface Reads {
  /** The copy in memory, if it may be served as it is: nothing to wait for. */
  fromMemory(namespace: Namespace, key: string): Held | undefined;
  /** One key through the layers. An expired value counts as a miss unless the layers below fail. */
  get(namespace: Namespace, key: string, bypassL1: boolean): Promise<Found>;
  /**
   * In order. Undefined: it did not fit, or what stands before it did not, so that it was not read. `fits` is asked in order.
   */
  getMany(
    namespace: Namespace,
    keys: readonly string[],
    bypassL1: boolean,
    fits: (key: string, found: Found) => boolean,
  ): Promise<(Found | undefined)[]>;
  /** With stampede protection: a miss gives one caller a lease, the others wait for what it stores. */
  getOrLease(namespace: Namespace, key: string, bypassL1: boolean, wish: LeaseWish): Promise<Found>;
  /**
   * What the shared layer holds, past memory; expired values come as stale. For rules that decide on it. What is found is kept
   * in memory; with `makeRoom` false, only where nothing else has to go for it.
   */
  look(namespace: Namespace, keys: readonly string[], makeRoom?: boolean): Promise<Found[]>;
  /** The key changed: a read that began before must not answer one that begins after. */
  outdate(namespace: Namespace, key: string): void;
  outdateAll(): void;
}

export interface ReadsOptions {
  readonly l1: L1;
  readonly storeOf: (namespace: Namespace) => CacheStore;
  readonly versions: Versions;
  readonly arrivals: Arrivals;
  readonly clock: Clock;
  /** Whether changes made elsewhere are being heard of. */
  readonly coherent: () => boolean;
}

/** How often to look again for a value that another instance may have stored, while changes are not heard of. */
const DEAF_POLL_MS = 200;

export function createReads({ l1, storeOf, versions, arrivals, clock, coherent }: ReadsOptions): Reads {
  const loads = createChurnTable<Promise<Found>>();
  const nameOf = (namespace: Namespace, key: string) => `${namespace.name}/${key}`;

  function fromMemory(namespace: Namespace, key: string): Held | undefined {
    const held = l1.get(namespace, key);
    if (held === undefined || !l1.isCurrent(held) || !coherent() || !isFresh(held.record, clock.now()))
      return undefined;
    return held;
  }

  // The functions that every read passes through are not async: each would cost it the better part of a kilobyte.
  function look(namespace: Namespace, keys: readonly string[], makeRoom = true): Promise<Found[]> {
    const pendings = keys.map((key) => l1.begin(namespace, key));
    const end = () => {
      for (const [i, key] of keys.entries()) {
        const pending = pendings[i];
        if (pending !== undefined) l1.end(namespace, key, pending);
      }
    };
    const reading = storeOf(namespace)
      .read(namespace.name, keys)
      .then((results) => keys.map((key, i) => settle(namespace, key, results[i], pendings[i], makeRoom)));
    reading.then(end, end);
    return reading;
  }

  function lookOne(namespace: Namespace, key: string): Promise<Found> {
    // Where memory is not used, nothing need be watched for while the read is under way.
    if (namespace.policy.l1TtlMs === 0) {
      return storeOf(namespace)
        .read(namespace.name, [key])
        .then(([result]) => meaning(namespace, key, result));
    }
    const pending = l1.begin(namespace, key);
    const end = () => l1.end(namespace, key, pending);
    const reading = storeOf(namespace)
      .read(namespace.name, [key])
      .then(([result]) => settle(namespace, key, result, pending, true));
    reading.then(end, end);
    return reading;
  }

  /** What a layer's answer means, and a copy of it in memory if that may be kept. */
  function settle(
    namespace: Namespace,
    key: string,
    result: ReadResult | undefined,
    pending: Pending | undefined,
    makeRoom: boolean,
  ): Found {
    const found = meaning(namespace, key, result);
    const isKeepable = found.outcome === "hit" && !found.degraded && result?.passing !== true && found.record;
    if (!isKeepable || pending === undefined) return found;
    return { ...found, held: l1.put(namespace, key, isKeepable, pending, makeRoom) };
  }

  function meaning(namespace: Namespace, key: string, result: ReadResult | undefined): Found {
    if (result === undefined) throw new Error("a read got no result");
    if (result.unknown || isBehindCopy(namespace, key, result)) return fromCopy(namespace, key, result);
    const { record, layer } = result;
    const seen = record?.version ?? 0;
    versions.observe(seen);
    const degraded = result.degraded ?? false;
    const miss: Found = { outcome: "miss", record: undefined, held: undefined, seen, layer, degraded };
    if (record === undefined || !result.valid || !isServable(record, clock.now())) {
      const held = l1.get(namespace, key);
      if (held !== undefined && result.passing !== true && held.record.version <= seen) l1.forget(namespace, key, held);
      else if (held !== undefined && record === undefined) l1.forget(namespace, key, held);
      return miss;
    }
    return { ...miss, outcome: isFresh(record, clock.now()) ? "hit" : "stale", record };
  }

  /** A fallback may only know what another instance left there before Redis, and with it our copy, was changed again. */
  function isBehindCopy(namespace: Namespace, key: string, { record, degraded }: ReadResult): boolean {
    if (!degraded || record === undefined) return false;
    return (l1.get(namespace, key)?.record.version ?? 0) > record.version;
  }

  /** The layer that knows is away: a copy, even an expired one, is better than nothing, unless it is known to be wrong. */
  function fromCopy(namespace: Namespace, key: string, { layer, raised, error }: ReadResult): Found {
    const held = l1.get(namespace, key);
    const found: Found = { outcome: "miss", record: undefined, held: undefined, seen: 0, layer, degraded: true };
    if (held !== undefined && isServable(held.record, clock.now())) {
      const { record } = held;
      if (raised === undefined || !(raised.has("") || record.tags.some((tag) => raised.has(tag)))) {
        const outcome = isFresh(record, clock.now()) ? "hit" : "stale";
        return { ...found, outcome, record, held, seen: record.version, layer: "l1" };
      }
    }
    if (error !== undefined) throw error;
    return found;
  }

  function memoryHit(held: Held): Found {
    const { record } = held;
    return { outcome: "hit", record, held, seen: record.version, layer: "l1", degraded: false };
  }

  /** As `look`, but an expired value is only for those who hold or wait for a lease, or have nothing better. */
  function forCaller(found: Found): Found {
    if (found.outcome !== "stale" || found.degraded) return found;
    return { ...found, outcome: "miss", record: undefined, held: undefined };
  }

  function load(namespace: Namespace, key: string, bypassL1: boolean): Promise<Found> {
    const name = nameOf(namespace, key);
    const shared = bypassL1 ? undefined : loads.get(name);
    if (shared !== undefined) return shared;
    const loading = lookOne(namespace, key);
    const done = () => {
      if (loads.get(name) === loading) loads.delete(name);
    };
    loads.set(name, loading);
    loading.then(done, done);
    return loading;
  }

  function count(namespace: Namespace, found: Found): Found {
    const { counters } = namespace;
    if (found.degraded) counters.fallbacks++;
    if (found.outcome === "miss") counters.misses++;
    else if (found.outcome === "stale") counters.staleHits++;
    else if (found.layer === "l1") counters.l1Hits++;
    else if (found.layer === "redis") counters.redisHits++;
    else counters.sqlHits++;
    return found;
  }

  async function getOrLease(namespace: Namespace, key: string, bypassL1: boolean, wish: LeaseWish): Promise<Found> {
    const giveUpAt = clock.monotonic() + wish.waitMs;
    for (let bypass = bypassL1; ; bypass = false) {
      const arrival = arrivals.expect(namespace.name, key);
      try {
        const held = bypass ? undefined : fromMemory(namespace, key);
        const found = held === undefined ? await load(namespace, key, bypass) : memoryHit(held);
        if (found.outcome === "hit") return await withEagerLease(namespace, key, found, wish);
        // A lease for a caller who has hung up meanwhile would keep all others waiting for nothing.
        wish.signal.throwIfAborted();
        const grant = await acquire(namespace, key, found, wish);
        if (grant === undefined) return found;
        if ("token" in grant) {
          // The lease may have become free because the value has just been stored.
          const now = await lookOne(namespace, key);
          const isNeeded = now.degraded || now.seen === found.seen;
          if (isNeeded && !wish.signal.aborted) return { ...found, lease: grant };
          await release(namespace, key, grant);
          wish.signal.throwIfAborted();
          continue;
        }
        const left = giveUpAt - clock.monotonic();
        if (found.outcome === "stale" || left <= 0 || arrivals.ended) return found;
        const untilFree = Math.max(1, grant.heldUntil - clock.now());
        await arrival.wait(
          Math.min(left, untilFree, coherent() ? Number.POSITIVE_INFINITY : DEAF_POLL_MS),
          wish.signal,
        );
      } finally {
        arrival.cancel();
      }
    }
  }

  /** If it cannot be given back, it ends by itself. */
  async function release(namespace: Namespace, key: string, { token }: GrantedLease): Promise<void> {
    namespace.counters.leases--;
    await storeOf(namespace)
      .releaseLease(namespace.name, key, token)
      .catch(() => {});
  }

  /** The lease, or until when another caller holds it; undefined when no layer can tell: then everyone computes. */
  async function acquire(
    namespace: Namespace,
    key: string,
    found: Found,
    { ttlMs }: LeaseWish,
  ): Promise<GrantedLease | { readonly heldUntil: number } | undefined> {
    const expiresAt = clock.now() + ttlMs;
    const token = newToken(found.seen, versions.next());
    try {
      const grant = await storeOf(namespace).acquireLease(namespace.name, key, token, expiresAt);
      if (!grant.granted) return grant;
    } catch (error) {
      if (error instanceof UnavailableError) return undefined;
      throw error;
    }
    namespace.counters.leases++;
    return { token, expiresAt };
  }

  /** Past the policy's threshold one reader is asked to compute the value anew, while it is still good. */
  async function withEagerLease(namespace: Namespace, key: string, found: Found, wish: LeaseWish): Promise<Found> {
    const { record, held } = found;
    if (record === undefined || held?.refreshAsked || !isDue(record, namespace.policy, clock.now())) return found;
    if (held !== undefined) held.refreshAsked = true;
    const grant = await acquire(namespace, key, found, wish);
    return grant !== undefined && "token" in grant ? { ...found, lease: grant } : found;
  }

  /** What is found for each of the keys, read together. */
  async function getPart(
    namespace: Namespace,
    keys: readonly string[],
    bypassL1: boolean,
  ): Promise<Map<string, Found>> {
    const found = new Map<string, Found>();
    const wanted = new Set<string>();
    for (const key of keys) {
      const held = bypassL1 ? undefined : fromMemory(namespace, key);
      if (held === undefined) wanted.add(key);
      else found.set(key, memoryHit(held));
    }
    const missing = [...wanted];
    const looked = missing.length === 0 ? [] : await look(namespace, missing);
    missing.forEach((key, i) => {
      const one = looked[i];
      if (one === undefined) throw new Error("a read got no result");
      found.set(key, forCaller(one));
    });
    return found;
  }

  return {
    fromMemory,
    get(namespace, key, bypassL1) {
      const held = bypassL1 ? undefined : fromMemory(namespace, key);
      if (held !== undefined) return Promise.resolve(count(namespace, memoryHit(held)));
      return load(namespace, key, bypassL1).then((found) => count(namespace, forCaller(found)));
    },
    async getMany(namespace, keys, bypassL1, fits) {
      const results: (Found | undefined)[] = [];
      let full = false;
      for (const part of portions(keys, namespace.policy)) {
        const found = full ? undefined : await getPart(namespace, part, bypassL1);
        for (const key of part) {
          const one = found?.get(key);
          const fitting = one !== undefined && fits(key, one) ? one : undefined;
          if (fitting === undefined) full = true;
          results.push(fitting && count(namespace, fitting));
        }
      }
      return results;
    },
    async getOrLease(namespace, key, bypassL1, wish) {
      return count(namespace, await getOrLease(namespace, key, bypassL1, wish));
    },
    look,
    outdate: (namespace, key) => loads.delete(nameOf(namespace, key)),
    outdateAll: () => loads.clear(),
  };
}
