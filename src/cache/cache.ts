import type { Backplane } from "../infra/backplane.ts";
import type { Clock } from "../infra/clock.ts";
import { invalidField } from "../infra/failure.ts";
import type { Fence, Fences } from "../infra/fencing.ts";
import type { Log } from "../infra/log.ts";
import { type NamedRequest, namedRequest } from "../infra/named-request.ts";
import { createArrivals } from "./arrivals.ts";
import { CACHE_TOPIC, type Change, decodeChange, encodeChange } from "./change.ts";
import { counterSum, counterValue } from "./counter.ts";
import { lifetime, type RequestedExpiry } from "./expiry.ts";
import { createFeed, type Feed } from "./feed.ts";
import { createL1, type L1 } from "./l1.ts";
import { createNamespaces, type Namespace, type Namespaces } from "./namespace.ts";
import type { PolicyFor } from "./policy.ts";
import { createReads, type Reads } from "./reads.ts";
import type { CacheRecord, CacheValue } from "./record.ts";
import type { CacheStore, KeyPage } from "./store.ts";
import type { Answered, Replay } from "./updates.ts";
import type { Versions } from "./version.ts";
import { createWarmer, type Warmer } from "./warm.ts";
import { createWrites, type Writes } from "./writes.ts";

export interface CacheOptions {
  readonly storeOf: (namespace: Namespace) => CacheStore;
  readonly policyFor: PolicyFor;
  readonly backplane: Backplane;
  readonly versions: Versions;
  readonly fences: Fences;
  readonly l1: { readonly maxBytes: number; readonly maxItems: number | undefined };
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

export interface Touched extends Answered {
  readonly found: boolean;
  readonly version: number;
  readonly expiresAt: number | undefined;
}

export interface Counted extends Answered {
  readonly value: bigint;
  readonly version: number;
  readonly expiresAt: number | undefined;
}

export interface Swapped extends Answered {
  readonly swapped: boolean;
  readonly version: number;
  readonly expiresAt: number | undefined;
  readonly current: CacheRecord | undefined;
}

/** The rules of the cache, over whichever layers this topology has. */
export interface Cache {
  readonly namespaces: Namespaces;
  readonly reads: Reads;
  readonly feed: Feed;
  /** How many reads wait for a value that another caller has a lease to fill. */
  readonly leaseWaiters: number;
  readonly l1: L1;
  readonly warmer: Warmer;
  readonly set: Writes["set"];
  readonly remove: Writes["remove"];
  touch(namespace: Namespace, key: string, expiry: RequestedExpiry): Promise<Touched>;
  increment(namespace: Namespace, key: string, order: IncrementOrder): Promise<Counted>;
  compareAndSet(namespace: Namespace, order: SwapOrder, fence?: Fence): Promise<Swapped>;
  invalidate(namespace: Namespace, tags: readonly string[]): Promise<{ readonly degraded: boolean }>;
  list(namespace: Namespace, prefix: string, limit: number, token: string): Promise<KeyPage>;
  /** Answers those who wait for another's lease as if their time had run out, and lets nobody wait from now on. */
  endWaiting(): void;
  close(): void;
}

export interface IncrementOrder {
  readonly delta: bigint;
  readonly initial: bigint;
  readonly expiry: RequestedExpiry;
  readonly requestId: string;
}

export interface SwapOrder {
  readonly key: string;
  readonly expected: number;
  readonly value: CacheValue;
  readonly expiry: RequestedExpiry;
  readonly tags: readonly string[];
  readonly requestId: string;
}

/** How often instances tell each other the version they have reached. */
const CLOCK_BEAT_MS = 1_000;

export function createCache(options: CacheOptions): Cache {
  const { storeOf, backplane, versions, fences, clock, random, log } = options;
  const namespaces = createNamespaces(options.policyFor);
  const l1 = createL1({ ...options.l1, monotonic: () => clock.monotonic() });
  const arrivals = createArrivals();
  const feed = createFeed();
  const reads = createReads({ l1, storeOf, versions, arrivals, clock, coherent: () => backplane.live });
  const warmer = createWarmer({ l1, reads, storeOf, log });
  const writes = createWrites({
    l1,
    reads,
    storeOf,
    versions,
    fences,
    clock,
    random,
    onChange(namespace, kind, key, version) {
      arrivals.wake(namespace.name, key);
      feed.publish({ kind, namespace: namespace.name, subject: key, version });
    },
    onInvalidate(namespace, tags, stamp) {
      const kind = tags.length === 0 ? "namespace" : "tag";
      for (const tag of tags.length === 0 ? [""] : tags) {
        invalidated(namespace, { kind, namespace: namespace.name, subject: tag, version: stamp });
      }
    },
  });

  function invalidated(namespace: Namespace | undefined, change: Change): void {
    if (namespace !== undefined) {
      if (change.kind === "namespace") l1.dropNamespace(namespace);
      else l1.dropTag(namespace, change.subject);
    }
    reads.outdateAll();
    feed.publish(change);
  }

  /** Another instance changed something. A namespace nobody used here has no copies to drop, but may have watchers. */
  function onMessage(message: string): void {
    const change = decodeChange(message);
    if (change === undefined) return;
    versions.observe(change.version);
    const namespace = namespaces.peek(change.namespace);
    switch (change.kind) {
      case "clock":
        return;
      case "tag":
      case "namespace":
        invalidated(namespace, change);
        return;
      case "set":
      case "deleted":
      case "drop":
        if (namespace !== undefined) {
          l1.drop(namespace, change.subject, change.version);
          reads.outdate(namespace, change.subject);
        }
        if (change.kind === "drop") return;
        arrivals.wake(change.namespace, change.subject);
        feed.publish(change);
    }
  }

  function onGap(live: boolean): void {
    l1.suspectAll();
    reads.outdateAll();
    arrivals.wakeAll();
    feed.interrupt(live ? "backplane restored after a gap" : "backplane lost");
  }

  const endings = [backplane.subscribe(CACHE_TOPIC, onMessage), backplane.onGap(onGap)];
  let told = 0;
  const beat = setInterval(() => {
    if (!backplane.live || versions.latest === told) return;
    told = versions.latest;
    // Lost, it comes again with the next beat.
    backplane
      .publish(CACHE_TOPIC, encodeChange({ kind: "clock", namespace: "", subject: "", version: told }))
      .catch(() => {});
  }, CLOCK_BEAT_MS).unref();

  return {
    namespaces,
    reads,
    feed,
    get leaseWaiters() {
      return arrivals.waiting;
    },
    l1,
    warmer,
    set: writes.set,
    remove: writes.remove,
    invalidate: writes.invalidate,

    touch: (namespace, key, expiry) =>
      writes.update<Omit<Touched, keyof Answered>>(namespace, key, (current, version) => {
        if (current === undefined) return { answer: { found: false, version: 0, expiresAt: undefined } };
        const life = lifetime(expiry, namespace.policy, clock.now(), random);
        const { value, tags } = current;
        return { store: { value, tags, ...life }, answer: { found: true, version, expiresAt: life.expiresAt } };
      }),

    async increment(namespace, key, { delta, initial, expiry, requestId }) {
      const fields = () => [`${delta}`, `${initial}`, JSON.stringify(expiry)];
      return writes.update(
        namespace,
        key,
        (current, version) => {
          const value = counterSum(counterValue(current, initial), delta);
          const life = current ?? lifetime(expiry, namespace.policy, clock.now(), random);
          const { createdAt, expiresAt, staleUntil } = life;
          const contentType = current?.value.contentType ?? "";
          return {
            store: {
              value: { data: String(value), contentType },
              tags: current?.tags ?? [],
              createdAt,
              expiresAt,
              staleUntil,
            },
            answer: { value, version, expiresAt },
            remember: { value: String(value), version, expiresAt },
          };
        },
        replayOf(namedRequest(requestId, "Increment", fields), parseCounted),
      );
    },

    async compareAndSet(namespace, order, fence) {
      const { data, contentType } = order.value;
      const fields = () => [data, JSON.stringify([typeof data, contentType, order.expected, order.expiry, order.tags])];
      return writes.update<Omit<Swapped, keyof Answered>>(
        namespace,
        order.key,
        (current, version) => {
          if ((current?.version ?? 0) !== order.expected) {
            return { answer: { swapped: false, version: current?.version ?? 0, expiresAt: undefined, current } };
          }
          const life = lifetime(order.expiry, namespace.policy, clock.now(), random);
          const answer = { swapped: true, version, expiresAt: life.expiresAt, current: undefined };
          const { value, tags } = order;
          return { store: { value, tags, ...life }, answer, remember: answer };
        },
        replayOf(namedRequest(order.requestId, "CompareAndSet", fields), parseSwapped),
        fence,
      );
    },

    async list(namespace, prefix, limit, token) {
      const cursor = readToken(token, namespace, prefix);
      const page = await storeOf(namespace).list(namespace.name, prefix, limit, cursor);
      return { ...page, cursor: page.cursor === undefined ? undefined : writeToken(namespace, prefix, page.cursor) };
    },

    endWaiting: arrivals.end,

    close() {
      clearInterval(beat);
      warmer.close();
      for (const end of endings) end();
      feed.interrupt("the server is stopping");
    },
  };
}

function replayOf<T>(request: NamedRequest | undefined, parse: (remembered: unknown) => T): Replay<T> | undefined {
  return request && { request, parse };
}

/** Answers are remembered as we wrote them ourselves; a field left out is one that was undefined. */
function parseCounted(remembered: unknown): Omit<Counted, keyof Answered> {
  const { value, version, expiresAt } = remembered as { value: string; version: number; expiresAt?: number };
  return { value: BigInt(value), version, expiresAt };
}

function parseSwapped(remembered: unknown): Omit<Swapped, keyof Answered> {
  const { swapped, version, expiresAt } = remembered as { swapped: boolean; version: number; expiresAt?: number };
  return { swapped, version, expiresAt, current: undefined };
}

function writeToken(namespace: Namespace, prefix: string, cursor: string): string {
  return Buffer.from(JSON.stringify([namespace.name, prefix, cursor])).toString("base64url");
}

function readToken(token: string, namespace: Namespace, prefix: string): string | undefined {
  if (token === "") return undefined;
  try {
    const parsed: unknown = JSON.parse(Buffer.from(token, "base64url").toString("utf8"));
    if (Array.isArray(parsed)) {
      const [name, start, cursor] = parsed as unknown[];
      // No cursor holds a NUL, since no key does; a forged one would be more than Postgres can take.
      const isOurs = typeof cursor === "string" && !cursor.includes("\0");
      if (isOurs && name === namespace.name && start === prefix) return cursor;
    }
  } catch {
    // Refused below, like a token of another listing.
  }
  throw invalidField("page_token", "is not a token that ListKeys returned for this namespace and prefix");
}
