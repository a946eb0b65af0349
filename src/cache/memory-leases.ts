import { LRUCache } from "lru-cache";
import type { Clock } from "../infra/clock.ts";
import type { Leases } from "./leases.ts";

const MOST_LEASES = 100_000;

/** Leases in this process's memory, for a layer that no other process writes. */
export function createMemoryLeases(clock: Clock): Leases {
  // By size and not by `max`, which would take the memory for all of them at once.
  const held = new LRUCache<string, { token: string; expiresAt: number }>({
    maxSize: MOST_LEASES,
    sizeCalculation: () => 1,
  });
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
    },
  };
}
