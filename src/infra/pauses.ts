import { setImmediate as nextTurn } from "node:timers/promises";

const TURN_MS = 5;

/**
 * For long work in this thread: call the result between its parts, and whoever waits for the event loop gets a turn every few
 * milliseconds.
 */
export function createPauses(): () => Promise<void> | undefined {
  let since = performance.now();
  return () => {
    if (performance.now() - since < TURN_MS) return undefined;
    return nextTurn().then(() => {
      since = performance.now();
    });
  };
}
