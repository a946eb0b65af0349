import type { Level } from "./counted.ts";

/** Slots that a lease holds of one limit. */
export interface HeldSlots {
  readonly slots: number;
  /** Microseconds since 1970: from then on they are free. */
  readonly expiresAt: number;
}

/** `resetAt` is when the first lease ends; undefined while there is none. */
export type SlotLevel = Omit<Level, "resetAt"> & { readonly resetAt: number | undefined };

/** At most the limit at once. `held` are those that have not ended. */
export function slotLevel(held: readonly HeldSlots[], limit: number): SlotLevel {
  const used = usedSlots(held);
  const first = held.reduce((soonest, { expiresAt }) => Math.min(soonest, expiresAt), Number.POSITIVE_INFINITY);
  return {
    remaining: Math.max(0, limit - used),
    overdrawn: Math.max(0, used - limit),
    resetAt: held.length === 0 ? undefined : first,
  };
}

/** Until enough leases have run out, if none is returned before. */
export function waitForSlots(held: readonly HeldSlots[], limit: number, now: number, slots: number): number {
  if (slots > limit) return Number.POSITIVE_INFINITY;
  let over = usedSlots(held) + slots - limit;
  if (over <= 0) return 0;
  for (const lease of held.toSorted((a, b) => a.expiresAt - b.expiresAt)) {
    over -= lease.slots;
    if (over <= 0) return lease.expiresAt - now;
  }
  return Number.POSITIVE_INFINITY;
}

function usedSlots(held: readonly HeldSlots[]): number {
  return held.reduce((sum, { slots }) => sum + slots, 0);
}
