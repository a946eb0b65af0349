import { UnavailableError } from "./failure.ts";

/** Whether a layer that is not asked on every call is still there. */
export interface Contact {
  /** Asks the layer, and notes whether it answered. */
  ask<T>(work: () => Promise<T>): Promise<T>;
  /** Whether it failed to answer last time. Looked at often, it has the layer asked in the background now and then. */
  readonly lost: boolean;
  /** Rejects, as the layer itself would, if it was lost and still does not answer. */
  assure(): Promise<void>;
}

/** How long an answer counts as news. */
const NEWS_MS = 1_000;

export function createContact(probe: () => Promise<unknown>, now: () => number): Contact {
  let lost = false;
  let askedAt = Number.NEGATIVE_INFINITY;

  async function ask<T>(work: () => Promise<T>): Promise<T> {
    askedAt = now();
    try {
      const result = await work();
      lost = false;
      return result;
    } catch (error) {
      lost = error instanceof UnavailableError;
      throw error;
    }
  }

  return {
    ask,
    get lost() {
      // What comes of it is for those who look later.
      if (Math.abs(now() - askedAt) >= NEWS_MS) ask(probe).catch(() => {});
      return lost;
    },
    async assure() {
      if (lost) await ask(probe);
    },
  };
}
