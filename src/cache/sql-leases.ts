import type { Clock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import type { Leases } from "./leases.ts";

/**
 * Leases in SQL, where other instances write the same database. In one that only this process writes they live in memory: they
 * would not outlive the process usefully, and a cold key then costs no commit.
 */
export function createSqlLeases(database: Database, clock: Clock): Leases {
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
    void() {},
  };
}
