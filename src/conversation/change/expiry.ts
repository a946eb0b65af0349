import type { CollectionPolicy, Expiry, ExpiryOrder, Held } from "../record/conversation.ts";

export interface Lifetime extends Expiry {
  readonly expiresUs: number | undefined;
}

/** The lifetime after a change: as ordered; else as before, put off if it slides; of a new one as the policy says. */
export function lifetimeAfter(
  order: ExpiryOrder | undefined,
  before: Held | undefined,
  policy: CollectionPolicy,
  nowUs: number,
): Lifetime {
  if (order === undefined && before !== undefined) {
    const { ttlMs, sliding, expiresUs } = before;
    return { ttlMs, sliding, expiresUs: sliding ? endOf(ttlMs, nowUs) : expiresUs };
  }
  const ttlMs = order?.ttlMs === undefined ? policy.ttlMs : order.ttlMs === "never" ? undefined : order.ttlMs;
  return { ttlMs, sliding: order?.sliding ?? policy.sliding, expiresUs: endOf(ttlMs, nowUs) };
}

function endOf(ttlMs: number | undefined, nowUs: number): number | undefined {
  return ttlMs === undefined ? undefined : nowUs + ttlMs * 1000;
}
