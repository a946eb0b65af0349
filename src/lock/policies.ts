import { type ByName, lookUpByName } from "../infra/by-name.ts";

/** What locks of a name have by configuration. */
export interface LockPolicy {
  /** How long a lease lasts when its caller does not say. */
  readonly ttlMs: number;
}

export interface LockPolicies {
  readonly fallback: LockPolicy;
  readonly names: ByName<LockPolicy>;
}

export type LockPolicyFor = (name: string) => LockPolicy;

export function createLockPolicyFor({ fallback, names }: LockPolicies): LockPolicyFor {
  return lookUpByName(names, fallback);
}
