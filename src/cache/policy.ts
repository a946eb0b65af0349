import { type ByName, lookUpByName } from "../infra/by-name.ts";

/** How the entries of a namespace are kept. Every field is decided: defaults are filled in by the configuration. */
export interface NamespacePolicy {
  /** How long an entry lives when the caller does not say. Undefined: until it is deleted. */
  readonly ttlMs: number | undefined;
  /** How long this instance may answer from its own memory before it asks a shared layer again. 0: memory is not used. */
  readonly l1TtlMs: number;
  /** Up to this share of a ttl is taken off at random, so that entries set together do not expire together. 0 to 1. */
  readonly jitter: number;
  /** For how long after its expiry an entry may still be served, marked stale, when a fresh one cannot be had. */
  readonly staleForMs: number;
  /** The share of the ttl after which one reader at a time is asked to compute the value anew. Undefined: never. */
  readonly eagerRefresh: number | undefined;
  /** Whether SQL holds the truth: a Set is committed there before it is acknowledged. */
  readonly durable: boolean;
  /** The longest value accepted. */
  readonly maxBytes: number;
  /** Patterns of the keys loaded into memory in the background at start. */
  readonly warm: readonly string[];
}

/** The policies as configured. A name that ends in `*` stands for every namespace that starts with what is before it. */
export interface NamespacePolicies {
  readonly fallback: NamespacePolicy;
  readonly namespaces: ByName<NamespacePolicy>;
  /** Whether a namespace that no name or prefix covers is refused instead of given the fallback. */
  readonly strict: boolean;
}

/** The policy of a namespace; undefined when it has none and must be refused. */
export type PolicyFor = (namespace: string) => NamespacePolicy | undefined;

/** An exact name wins, then the longest prefix, then the fallback (unless strict). */
export function createPolicyFor({ fallback, namespaces, strict }: NamespacePolicies): PolicyFor {
  return lookUpByName(namespaces, strict ? undefined : fallback);
}
