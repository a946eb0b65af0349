import { type ByName, lookUpByName } from "../../infra/by-name.ts";
import type { CollectionPolicy, PolicyFor } from "./conversation.ts";

/** The policies as configured. A name that ends in `*` stands for every collection that starts with what is before it. */
export interface CollectionPolicies {
  readonly fallback: CollectionPolicy;
  readonly collections: ByName<CollectionPolicy>;
  /** Whether a collection that no name or start of one covers is refused instead of given the fallback. */
  readonly strict: boolean;
}

/** An exact name wins, then the longest start, then the fallback (unless strict). */
export function createPolicyFor({ fallback, collections, strict }: CollectionPolicies): PolicyFor {
  return lookUpByName(collections, strict ? undefined : fallback);
}

/** By which what is left of a collection is removed that the configuration has ceased to admit. */
export const NO_LONGER_ADMITTED: CollectionPolicy = {
  ...{ ttlMs: undefined, sliding: false, history: 0 },
  tombstoneMs: 86_400_000,
};
