import type { Backplane } from "../../infra/backplane.ts";

/** How large the archive is, as far as this instance has heard, and who wants to know when it grows. */
export interface Growth {
  /** The number of leaves last heard of. */
  readonly size: number;
  /** Tells everyone, on all instances: a commit made the archive this large. */
  announce(size: number): void;
  /** Called when it grew, and when growth may have been missed (then with the size known). Returns the removal. */
  onGrown(listener: (size: number) => void): () => void;
  close(): void;
}

const TOPIC = "audit";

/** Announcements may be lost, so whoever waits for growth must also look by itself now and then. */
export function createGrowth(backplane: Backplane): Growth {
  const listeners = new Set<(size: number) => void>();
  let known = 0;
  let latest: number | undefined;
  let sending = false;

  function tell(size: number): void {
    known = Math.max(known, size);
    for (const listener of [...listeners]) listener(known);
  }

  /** One at a time: while one is on its way, only the largest of those that follow is worth sending. */
  async function send(): Promise<void> {
    sending = true;
    while (latest !== undefined) {
      const size = latest;
      latest = undefined;
      try {
        await backplane.publish(TOPIC, String(size));
      } catch {
        // The others hear of a gap, or look by themselves.
      }
    }
    sending = false;
  }

  const unsubscribe = backplane.subscribe(TOPIC, (message) => {
    const size = Number(message);
    if (Number.isSafeInteger(size)) tell(size);
  });
  const forget = backplane.onGap((live) => {
    if (live) tell(known);
  });

  return {
    get size() {
      return known;
    },
    announce(size) {
      latest = Math.max(size, latest ?? 0);
      if (!sending) void send();
      tell(size);
    },
    onGrown(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      unsubscribe();
      forget();
      listeners.clear();
    },
  };
}
