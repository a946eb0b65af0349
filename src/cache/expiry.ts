import type { NamespacePolicy } from "./policy.ts";

/** What a caller asked for: a time to live, for ever, or whatever the policy says. */
export type RequestedExpiry = { readonly ttlMs: number } | "never" | "policy";

export interface Lifetime {
  readonly createdAt: number;
  readonly expiresAt: number | undefined;
  readonly staleUntil: number | undefined;
}

/** `random` is from 0 up to 1. Jitter only ever shortens: nothing outlives what was asked for. */
export function lifetime(
  requested: RequestedExpiry,
  policy: NamespacePolicy,
  now: number,
  random: () => number,
): Lifetime {
  const ttlMs = requested === "never" ? undefined : requested === "policy" ? policy.ttlMs : requested.ttlMs;
  if (ttlMs === undefined) return { createdAt: now, expiresAt: undefined, staleUntil: undefined };
  const expiresAt = now + Math.max(1, Math.round(ttlMs * (1 - policy.jitter * random())));
  return { createdAt: now, expiresAt, staleUntil: expiresAt + policy.staleForMs };
}

/** Whether it is time to compute the value anew before it expires. */
export function isDue({ createdAt, expiresAt }: Lifetime, policy: NamespacePolicy, now: number): boolean {
  if (policy.eagerRefresh === undefined || expiresAt === undefined) return false;
  return now >= createdAt + (expiresAt - createdAt) * policy.eagerRefresh;
}
