import { setTimeout as delay } from "node:timers/promises";
import type { Queue } from "./queue.ts";

/** Told how long a batch took and how many records still wait. Resolves when it is the archiver's turn again. */
export type GiveWay = (workMs: number, left: number, signal: AbortSignal) => Promise<void>;

const LOOK_MS = 10;
const REST = 3;
const LONGEST_MS = 250;

/**
 * For an archive that is in this very thread: while records come in, taking them in goes first. They are safe as soon as they are
 * queued; that is what the queue is for. The archiver rests three times as long as it worked, unless someone waits for what it does,
 * or `mostWaiting` records wait already.
 */
export function createGiveWay({ traffic }: Pick<Queue, "traffic">, mostWaiting: number): GiveWay {
  let seen = 0;

  return async (workMs, left, signal) => {
    const isFed = traffic.appended > seen;
    seen = traffic.appended;
    if (!isFed || left > mostWaiting) return;
    const until = performance.now() + Math.min(REST * workMs, LONGEST_MS);
    for (let rest = workMs; rest > 0 && !traffic.awaited && !signal.aborted; rest = until - performance.now()) {
      await delay(Math.min(rest, LOOK_MS));
    }
  };
}
