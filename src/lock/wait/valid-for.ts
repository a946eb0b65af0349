import type { Lease } from "../authority/authority.ts";

/** Clocks may differ in speed by this much, and in what they count as now. */
const DRIFT = 0.01;
const LEAST_MS = 2;

/** How much sooner than its authority says a lease has to be taken as over, since the authority counts on another clock. */
export function clockMargin(remainingMs: number): number {
  return remainingMs * DRIFT + LEAST_MS;
}

/** Until when a lease may be relied on that its authority was asked for at this time; both on our monotonic clock. */
export function validUntilOf({ remainingMs }: Pick<Lease, "remainingMs">, asked: number): number {
  return asked + remainingMs - clockMargin(remainingMs);
}
