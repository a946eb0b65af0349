import { type ByName, lookUpByName } from "../../infra/by-name.ts";
import type { CollectionPolicy, PolicyFor } from "./conversation.ts";

/** The policies as configured. A name that ends in `*` stands for every collection that starts with what is before it. */
export interface CollectionPolicies {
  readonly fallback: CollectionPolicy;
  readonly collections: ByName<CollectionPolicy>;
  /** Whether a collection that no name or start of one covers is refused, unless built in, instead of given the fallback. */
  readonly strict: boolean;
}

/** They are there whatever is configured: who names no collection means the first. */
const BUILT_IN: ReadonlySet<string> = new Set(["conversation", "orchestration"]);

/** An exact name wins, then the longest start, then the fallback (where it is strict, for those that are built in). */
export function createPolicyFor({ fallback, collections, strict }: CollectionPolicies): PolicyFor {
  if (!strict) return lookUpByName(collections, fallback);
  const configured = lookUpByName(collections, undefined);
  return (name) => configured(name) ?? (BUILT_IN.has(name) ? fallback : undefined);
}

/** By which what is left of a collection is removed that the configuration has ceased to admit. */
export const NO_LONGER_ADMITTED: CollectionPolicy = {
  ...{ ttlMs: undefined, sliding: false, history: 0 },
  tombstoneMs: 86_400_000,
};
