import { LRUCache } from "lru-cache";
import { ageMs, type Clock, type Moment, momentOf } from "./clock.ts";
import type { Database } from "./database.ts";
import { type Fence, type Fences, FencingTokenStaleError, FencingTokenUnknownError, isToken } from "./fencing.ts";
import { raiseFence } from "./sql-fences.ts";

export interface FencesOptions {
  readonly database: Database;
  /**
   * The newest token of a lock that is known to be granted, by who decides about locks; 0: none. Where newer ones may have been
   * granted since, it is what lies below all of those, and is no token.
   */
  readonly lastTokenOf: (lock: string) => Promise<number>;
  readonly clock: Clock;
}

/** Locks whose newest tokens are remembered. */
const MOST_KNOWN = 10_000;
/**
 * After this long it is asked again whether a token is the newest. Much less than what fences are kept in SQL: what is forgotten
 * there must not be admitted from memory.
 */
const KNOWN_MS = 3_600_000;

interface Known {
  /** It was granted, so all that are smaller are over for ever. */
  readonly token: number;
  readonly since: Moment;
}

/** The fences of one instance. What is remembered here only spares questions; what was seen is in SQL. */
export function createFences({ database, lastTokenOf, clock }: FencesOptions): Fences {
  const known = new LRUCache<string, Known>({ max: MOST_KNOWN });

  function learn(lock: string, token: number): void {
    if (token > 0 && token >= (known.get(lock)?.token ?? 0)) known.set(lock, { token, since: momentOf(clock) });
  }

  async function admit(fence: Fence): Promise<void> {
    const { lock, token } = fence;
    const newest = known.get(lock);
    if (newest !== undefined && token < newest.token) throw new FencingTokenStaleError(fence, newest.token);
    if (newest?.token === token && isToken(token) && ageMs(clock, newest.since) < KNOWN_MS) return;
    const last = await lastTokenOf(lock);
    learn(lock, last);
    if (token < last) throw new FencingTokenStaleError(fence, last);
    if (token > last || !isToken(token)) throw new FencingTokenUnknownError(fence, last);
  }

  return {
    admit,
    async raise(fence) {
      await admit(fence);
      const newest = await raiseFence(database, fence);
      learn(fence.lock, newest);
      if (newest > fence.token) throw new FencingTokenStaleError(fence, newest);
    },
  };
}
