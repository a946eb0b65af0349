import type { GrantEnd, LockRecord } from "../record/grant.ts";
import type { Lease } from "./authority.ts";

/** The fields of a lock's hash, in the order in which scripts read it and answer with it. `take`: see redis-strays.ts. */
export const RECORD_FIELDS = [
  ...["token", "owner", "purpose", "caller", "instance", "stream", "request", "meaning"],
  ...["ttl", "acquire", "expire", "renewals", "ended", "ended_ms"],
  ...["streak", "wanted", "rival", "rival_until", "take"],
] as const;

/** Undefined where there is none. */
export function recordOf(name: string, values: readonly unknown[]): LockRecord | undefined {
  if (values[0] === null || values[0] === undefined) return undefined;
  const text = (at: number) => String(values[at] ?? "");
  const number = (at: number) => Number(values[at] ?? 0);
  return {
    grant: {
      ...{ name, token: number(0), owner: text(1), purpose: text(2), caller: text(3) },
      ...{ instanceId: text(4), streamId: text(5), requestId: text(6), requestMeaning: text(7) },
      ...{ ttlMs: number(8), acquireMs: number(9), expireMs: number(10), renewals: number(11) },
      ...{ end: endOf(values[12]), endMs: number(13) },
    },
    ...{ streak: number(14), wantedUntilMs: number(15), rival: text(16), rivalUntilMs: number(17) },
  };
}

/** What a script answers with when there is a lease to tell of. */
export function leaseOf(name: string, nowMs: number, values: readonly unknown[]): Lease | undefined {
  const grant = recordOf(name, values)?.grant;
  return grant && { grant, remainingMs: Math.max(0, grant.expireMs - nowMs) };
}

function endOf(value: unknown): GrantEnd {
  return value === "released" || value === "forced" ? value : "";
}
