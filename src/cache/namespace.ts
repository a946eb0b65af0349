import { LRUCache } from "lru-cache";
import { Failure } from "../infra/failure.ts";
import type { NamespacePolicy, PolicyFor } from "./policy.ts";

/** What this instance counts for a namespace. Plain numbers: they are bumped on the hot path. */
export interface NamespaceCounters {
  l1Hits: number;
  redisHits: number;
  sqlHits: number;
  staleHits: number;
  misses: number;
  writes: number;
  deletes: number;
  invalidations: number;
  leases: number;
  fallbacks: number;
  l1Entries: number;
  l1Bytes: number;
  l1Evictions: number;
}

/** What only ever grows, so that it can be summed up over namespaces that come and go. */
export type NamespaceTotals = Omit<NamespaceCounters, "l1Entries" | "l1Bytes">;

/** A tag as L1 sees it: entries that carry it share this object, so that invalidating them all is one assignment. */
export interface TagMark {
  dead: boolean;
  holders: number;
}

/** A namespace as this instance knows it. */
export interface Namespace {
  readonly name: string;
  readonly policy: NamespacePolicy;
  readonly counters: NamespaceCounters;
  readonly tags: Map<string, TagMark>;
  /** Rises with each invalidation of the namespace; L1 entries of an earlier generation are dead. */
  generation: number;
  /** Rises with each invalidation of a tag or the namespace: a read that was under way must not be kept. */
  invalidations: number;
}

export interface Namespaces {
  /** Throws when the configuration admits only namespaces it names, and this is not one. */
  get(name: string): Namespace;
  /** Without making it. */
  peek(name: string): Namespace | undefined;
  all(): Namespace[];
  /** The sums over all namespaces since the start, forgotten ones included. */
  totals(): NamespaceTotals;
}

/** Names are the callers' to choose, so how many are remembered is bounded; the least used are forgotten, with their copies. */
const MOST_NAMESPACES = 10_000;

export function createNamespaces(policyFor: PolicyFor): Namespaces {
  const forgotten: NamespaceTotals = zeroCounters();
  const known = new LRUCache<string, Namespace>({
    max: MOST_NAMESPACES,
    dispose: (namespace) => {
      namespace.generation = Number.POSITIVE_INFINITY;
      add(forgotten, namespace.counters);
    },
  });

  function make(name: string): Namespace {
    const policy = policyFor(name);
    if (policy === undefined) throw new UnknownNamespaceError(name);
    const namespace = { name, policy, counters: zeroCounters(), tags: new Map(), generation: 0, invalidations: 0 };
    known.set(name, namespace);
    return namespace;
  }

  return {
    get: (name) => known.get(name) ?? make(name),
    peek: (name) => known.peek(name),
    all: () => [...known.values()],
    totals() {
      const sums: NamespaceTotals = { ...forgotten };
      for (const namespace of known.values()) add(sums, namespace.counters);
      return sums;
    },
  };
}

export class UnknownNamespaceError extends Failure {
  constructor(name: string) {
    super("invalid", "NAMESPACE_UNKNOWN", `namespace: "${name}" is not one that the server is configured for`, {
      violations: [{ field: "namespace", description: "has no policy, and cache.strict_namespaces is on" }],
      metadata: { namespace: name },
    });
  }
}

function add(sums: NamespaceTotals, counters: NamespaceTotals): void {
  for (const name of TOTAL_NAMES) sums[name] += counters[name];
}

function zeroCounters(): NamespaceCounters {
  return {
    l1Hits: 0,
    redisHits: 0,
    sqlHits: 0,
    staleHits: 0,
    misses: 0,
    writes: 0,
    deletes: 0,
    invalidations: 0,
    leases: 0,
    fallbacks: 0,
    l1Entries: 0,
    l1Bytes: 0,
    l1Evictions: 0,
  };
}

const TOTAL_NAMES = (Object.keys(zeroCounters()) as (keyof NamespaceCounters)[]).filter(
  (name) => name !== "l1Entries" && name !== "l1Bytes",
);
