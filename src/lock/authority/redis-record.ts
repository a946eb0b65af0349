import type { Lease } from "./authority.ts";

/**
 * What a lock's key holds: how its newest grant ended and when (END characters), so that this can be written by itself,
 * and then these, packed with cmsgpack, which scripts read several times as fast as a hash. `who` is owner, purpose and
 * caller as a JSON array; of `take` says redis-strays.ts.
 */
export const RECORD_FIELDS = [
  ...["token", "who", "instance", "stream", "request", "meaning", "ttl", "acquire", "expire", "renewals"],
  ...["streak", "wanted", "rival", "rival_until", "take"],
] as const;

/**
 * "h" while it is held, or until its time is over; "r" when it was released, "f" when by force, each with the time in
 * 13 digits.
 */
export const END = 14;
export const HELD = "h".padEnd(END, "0");

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
