import { LRUCache } from "lru-cache";
import type { Clock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import type { LeaseGrant } from "./store.ts";

/**
 * Leases where SQL is the shared layer. In a database that only this process writes they live in memory: they would not
 * outlive the process usefully, and a cold key then costs no commit.
 */
export interface SqlLeases {
  acquire(namespace: string, key: string, token: string, expiresAt: number): Promise<LeaseGrant>;
  /**
   * Whether this is the lease that is held. For leases in memory this decides; for those in SQL the write itself checks. It ends
   * only when the write is done: whoever were given the next one before would not see the value yet, and compute it again.
   */
  holds(namespace: string, key: string, token: string): boolean;
  release(namespace: string, key: string, token: string): Promise<void>;
  /** Ends whatever lease there is, because the key was changed. */
  void(namespace: string, key: string): Promise<void> | undefined;
}

export function createMemoryLeases(clock: Clock): SqlLeases {
  const held = new LRUCache<string, { token: string; expiresAt: number }>({ max: 100_000 });
  const nameOf = (namespace: string, key: string) => `${namespace}/${key}`;
  return {
    async acquire(namespace, key, token, expiresAt) {
      const name = nameOf(namespace, key);
      const lease = held.get(name);
      if (lease !== undefined && lease.expiresAt > clock.now()) return { granted: false, heldUntil: lease.expiresAt };
      held.set(name, { token, expiresAt });
      return { granted: true };
    },
    holds(namespace, key, token) {
      const lease = held.get(nameOf(namespace, key));
      return lease !== undefined && lease.token === token && lease.expiresAt > clock.now();
    },
    async release(namespace, key, token) {
      const name = nameOf(namespace, key);
      if (held.get(name)?.token === token) held.delete(name);
    },
    void(namespace, key) {
      if (held.size > 0) held.delete(nameOf(namespace, key));
      return undefined;
    },
  };
}

export function createTableLeases(database: Database, clock: Clock): SqlLeases {
  return {
    async acquire(namespace, key, token, expiresAt) {
      const rows = await database.write(
        `INSERT INTO cache_lease (namespace, key, token, expires_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (namespace, key) DO UPDATE SET token = excluded.token, expires_at = excluded.expires_at
         WHERE cache_lease.expires_at <= $5 RETURNING token`,
        [namespace, key, token, expiresAt, clock.now()],
      );
      if (rows.length > 0) return { granted: true };
      const [held] = await database.query<{ expires_at: number }>(
        "SELECT expires_at FROM cache_lease WHERE namespace = $1 AND key = $2",
        [namespace, key],
      );
      return { granted: false, heldUntil: held?.expires_at ?? clock.now() };
    },
    holds: () => true,
    async release(namespace, key, token) {
      await database.write("DELETE FROM cache_lease WHERE namespace = $1 AND key = $2 AND token = $3", [
        namespace,
        key,
        token,
      ]);
    },
    async void(namespace, key) {
      await database.write("DELETE FROM cache_lease WHERE namespace = $1 AND key = $2", [namespace, key]);
    },
  };
}
