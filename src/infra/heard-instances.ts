import type { Backplane } from "./backplane.ts";

/** Instances that hear each other on the backplane, where no Redis keeps a list of them. */
export interface HeardInstances {
  /** This one included. Those last heard, while nothing can be heard. */
  readonly count: number;
  /** Says goodbye, so that the others need not wait until it is missed. */
  close(): Promise<void>;
}

export interface HeardInstancesOptions {
  readonly backplane: Pick<Backplane, "publish" | "subscribe" | "live">;
  /** Names this instance. No spaces. */
  readonly id: string;
  /** How often to be heard. Default 5 s; the others forget it after three times that. */
  readonly heartbeatMs?: number;
}

const TOPIC = "instances";
const MISSED = 3;

export function createHeardInstances(options: HeardInstancesOptions): HeardInstances {
  const { backplane, id, heartbeatMs = 5_000 } = options;
  /** At which of the heartbeats in which others could be heard. */
  const lastHeard = new Map<string, number>();
  let heartbeats = 0;
  let closed = false;

  /** Without a way to the others nobody is heard, and nobody has left for that; nor has the moment it is back. */
  function forgetMissed(): void {
    if (!backplane.live) return;
    heartbeats++;
    for (const [other, heard] of lastHeard) if (heartbeats - heard > MISSED) lastHeard.delete(other);
  }

  function say(what: "here" | "gone"): Promise<void> {
    // Unheard now, it is heard with its next heartbeat; that the way to the others is gone is told by the backplane itself.
    return backplane.publish(TOPIC, `${what} ${id}`).catch(() => {});
  }

  const unsubscribe = backplane.subscribe(TOPIC, (message) => {
    const [what, other = ""] = message.split(" ");
    if (what === "gone") {
      lastHeard.delete(other);
      return;
    }
    const isNew = !lastHeard.has(other);
    lastHeard.set(other, heartbeats);
    // So that one that has just come need not wait for everyone's next heartbeat.
    if (isNew && !closed) void say("here");
  });
  const timer = setInterval(() => {
    void say("here");
    forgetMissed();
  }, heartbeatMs);
  timer.unref();
  void say("here");

  return {
    get count() {
      return lastHeard.size + 1;
    },
    async close() {
      closed = true;
      clearInterval(timer);
      unsubscribe();
      await say("gone");
    },
  };
}
