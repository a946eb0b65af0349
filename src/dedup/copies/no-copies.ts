import type { Copies } from "./copies.ts";
import type { Recall } from "./recall.ts";

/** Where there is no Redis. Other instances may have it, or this one in an earlier life. */
export function createNoCopies(recall: Recall): Copies {
  return {
    read: () => Promise.resolve(undefined),
    moment: () => undefined,
    fill: () => {},
    forget: recall,
    areCertain: false,
    close: () => Promise.resolve(),
  };
}
