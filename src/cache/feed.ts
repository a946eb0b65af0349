import type { Change } from "./change.ts";

/** What a watcher is told. */
export type FeedEvent =
  | { readonly kind: "opened" }
  | { readonly kind: "change"; readonly change: Change }
  | { readonly kind: "heartbeat" }
  | { readonly kind: "discontinuity"; readonly reason: string };

/**
 * The changes of each namespace, for those who watch it. All watchers of a namespace read from one ring of its latest changes,
 * so memory does not grow with their number or slowness: one that falls behind the ring is told of the discontinuity.
 */
export interface Feed {
  publish(change: Change): void;
  /** Every watcher may have missed something. */
  interrupt(reason: string): void;
  /** First `opened`, then what changes from that moment on, until the signal is aborted (then it throws its reason). */
  watch(namespace: string, prefix: string, heartbeatMs: number, signal: AbortSignal): AsyncGenerator<FeedEvent>;
  readonly watchers: number;
}

/** Changes kept for each watched namespace. */
const RING = 1_024;

interface Ring {
  readonly changes: (Change | undefined)[];
  /** The number of the next change. */
  next: number;
  readonly sleepers: Set<() => void>;
  watchers: number;
  interruptions: number;
  reason: string;
}

export function createFeed(): Feed {
  const rings = new Map<string, Ring>();
  let watchers = 0;

  function wakeAll(ring: Ring): void {
    const sleepers = [...ring.sleepers];
    ring.sleepers.clear();
    for (const wake of sleepers) wake();
  }

  function join(namespace: string): Ring {
    let ring = rings.get(namespace);
    if (ring === undefined) {
      ring = { changes: [], next: 0, sleepers: new Set(), watchers: 0, interruptions: 0, reason: "" };
      rings.set(namespace, ring);
    }
    ring.watchers++;
    watchers++;
    return ring;
  }

  function leave(namespace: string, ring: Ring): void {
    watchers--;
    if (--ring.watchers === 0) rings.delete(namespace);
  }

  async function* watch(
    namespace: string,
    prefix: string,
    heartbeatMs: number,
    signal: AbortSignal,
  ): AsyncGenerator<FeedEvent> {
    const ring = join(namespace);
    let at = ring.next;
    let interruptions = ring.interruptions;
    try {
      yield { kind: "opened" };
      for (;;) {
        signal.throwIfAborted();
        if (interruptions !== ring.interruptions || ring.next - at > RING) {
          const reason = interruptions === ring.interruptions ? "slow reader" : ring.reason;
          interruptions = ring.interruptions;
          at = ring.next;
          yield { kind: "discontinuity", reason };
          continue;
        }
        if (at < ring.next) {
          const change = ring.changes[at++ % RING];
          if (change !== undefined && concerns(change, prefix)) yield { kind: "change", change };
          continue;
        }
        if (await sleep(ring, heartbeatMs, signal)) yield { kind: "heartbeat" };
      }
    } finally {
      leave(namespace, ring);
    }
  }

  return {
    publish(change) {
      const ring = rings.get(change.namespace);
      if (ring === undefined) return;
      ring.changes[ring.next++ % RING] = change;
      wakeAll(ring);
    },
    interrupt(reason) {
      for (const ring of rings.values()) {
        ring.interruptions++;
        ring.reason = reason;
        wakeAll(ring);
      }
    },
    watch,
    get watchers() {
      return watchers;
    },
  };
}

function concerns(change: Change, prefix: string): boolean {
  return change.kind === "tag" || change.kind === "namespace" || change.subject.startsWith(prefix);
}

/** True when the time passed without anything to tell. */
function sleep(ring: Ring, ms: number, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (timedOut: boolean) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", wake);
      ring.sleepers.delete(wake);
      resolve(timedOut);
    };
    const wake = () => end(false);
    const timer = setTimeout(() => end(true), ms);
    ring.sleepers.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    if (signal.aborted) end(false);
  });
}
