import type { Backplane } from "../../infra/backplane.ts";

/** Tells those who watch conversations, on all instances, that something was committed. */
export interface ChangeBell {
  ring(): void;
  /** Called when it rings, here or elsewhere, and when ringing may have been missed. Returns the removal. */
  onRing(listener: () => void): () => void;
  close(): void;
}

const TOPIC = "conversation";

/** Ringing may be lost, so whoever waits for it must also look by itself now and then. */
export function createChangeBell(backplane: Backplane): ChangeBell {
  const listeners = new Set<() => void>();
  let unsent = false;
  let sending = false;

  function tell(): void {
    for (const listener of [...listeners]) listener();
  }

  /** One at a time: however often it rings while one is on its way, one more says it all. */
  async function send(): Promise<void> {
    sending = true;
    while (unsent) {
      unsent = false;
      try {
        await backplane.publish(TOPIC, "");
      } catch {
        // The others hear of a gap, or look by themselves.
      }
    }
    sending = false;
  }

  const unsubscribe = backplane.subscribe(TOPIC, tell);
  const forget = backplane.onGap((live) => {
    if (live) tell();
  });

  return {
    ring() {
      unsent = true;
      if (!sending) void send();
      tell();
    },
    onRing(listener) {
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
