import { setTimeout as delay } from "node:timers/promises";
import type { Head } from "./head.ts";

/** Sees to it that nobody believes any copy that was made before. */
export type Recall = () => Promise<void>;

export function createRecall(head: Head): Recall {
  return async () => {
    const lastsMs = await head.end();
    if (lastsMs > 0) await delay(lastsMs);
  };
}
