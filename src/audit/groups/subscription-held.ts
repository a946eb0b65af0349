import type { DeliveryRef } from "./deliveries.ts";

/** The deliveries that a stream's consumer holds unsettled: those whose deadline has passed are not held any more. */
export interface Held {
  /** `now` and deadlines are of the same clock. */
  count(now: number): number;
  hold(refs: readonly DeliveryRef[], deadlineMs: number): void;
  extend(refs: readonly DeliveryRef[], deadlineMs: number): void;
  settle(refs: readonly DeliveryRef[]): void;
}

export function createHeld(): Held {
  const held = new Map<number, { readonly token: number; deadlineMs: number }>();
  // No deadline passes before this.
  let soonestMs = Number.POSITIVE_INFINITY;

  function dropOverdue(now: number): void {
    soonestMs = Number.POSITIVE_INFINITY;
    for (const [leafIndex, { deadlineMs }] of held) {
      if (deadlineMs <= now) held.delete(leafIndex);
      else soonestMs = Math.min(soonestMs, deadlineMs);
    }
  }

  return {
    count(now) {
      if (now >= soonestMs) dropOverdue(now);
      return held.size;
    },
    hold(refs, deadlineMs) {
      for (const { leafIndex, token } of refs) held.set(leafIndex, { token, deadlineMs });
      soonestMs = Math.min(soonestMs, deadlineMs);
    },
    extend(refs, deadlineMs) {
      for (const { leafIndex, token } of refs) {
        // One that was dropped as overdue is held again: nobody had taken it.
        const known = held.get(leafIndex);
        if (known === undefined || known.token === token) held.set(leafIndex, { token, deadlineMs });
      }
      soonestMs = Math.min(soonestMs, deadlineMs);
    },
    settle(refs) {
      for (const { leafIndex, token } of refs) if (held.get(leafIndex)?.token === token) held.delete(leafIndex);
    },
  };
}
