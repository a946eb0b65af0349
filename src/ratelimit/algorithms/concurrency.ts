import type { Level } from "./counted.ts";

/** The slots of one limit that leases hold which have not ended. Times are microseconds since 1970. */
export interface HeldSlots {
  readonly used: number;
  /** When the first lease ends; undefined while there is none. */
  readonly firstEnd: number | undefined;
  /** When so many of them are free, if none is returned before; Infinity for more than there are. */
  freeAt(slots: number): number;
}

/** `resetAt` is when the first lease ends; undefined while there is none. */
export type SlotLevel = Omit<Level, "resetAt"> & { readonly resetAt: number | undefined };

/** At most the limit at once. */
export function slotLevel({ used, firstEnd }: HeldSlots, limit: number): SlotLevel {
  return { remaining: Math.max(0, limit - used), overdrawn: Math.max(0, used - limit), resetAt: firstEnd };
}

/** Until enough leases have run out, if none is returned before. */
export function waitForSlots(held: HeldSlots, limit: number, now: number, slots: number): number {
  if (slots > limit) return Number.POSITIVE_INFINITY;
  const over = held.used + slots - limit;
  return over <= 0 ? 0 : held.freeAt(over) - now;
}
