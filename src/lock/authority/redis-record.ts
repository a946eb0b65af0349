import type { Lease } from "./authority.ts";

/**
 * What a lock's key holds: these, packed with cmsgpack, which scripts read several times as fast as a hash of as many fields.
 * `who` is owner, purpose and caller as a JSON array; `take` is said in redis-strays.ts.
 */
export const RECORD_FIELDS = [
  ...["token", "who", "instance", "stream", "request", "meaning", "ttl", "acquire", "expire", "renewals"],
  ...["ended", "ended_ms", "streak", "wanted", "rival", "rival_until", "take"],
] as const;

/** The first of them are what scripts tell of a lease that lasts. */
export const LEASE_FIELDS = RECORD_FIELDS.slice(0, 10);

/** Undefined where nobody holds the lock. */
export function leaseOf(name: string, nowMs: number, values: readonly unknown[]): Lease | undefined {
  if (values.length === 0) return undefined;
  const [token, who, instance, stream, request, meaning, ttl, acquire, expire, renewals] = values;
  const [owner = "", purpose = "", caller = ""] = namesOf(String(who));
  const expireMs = Number(expire);
  return {
    grant: {
      ...{ name, token: Number(token), owner, purpose, caller },
      ...{ instanceId: String(instance), streamId: String(stream) },
      ...{ requestId: String(request), requestMeaning: String(meaning) },
      ...{ ttlMs: Number(ttl), acquireMs: Number(acquire), expireMs, renewals: Number(renewals), end: "", endMs: 0 },
    },
    remainingMs: Math.max(0, expireMs - nowMs),
  };
}

function namesOf(who: string): readonly string[] {
  const names: unknown = JSON.parse(who);
  return Array.isArray(names) ? names.map(String) : [];
}
