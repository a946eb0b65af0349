import type { LeaseGrant } from "./store.ts";

/** Who may fill a missing key, for a layer that keeps this beside its records. */
export interface Leases {
  acquire(namespace: string, key: string, token: string, expiresAt: number): Promise<LeaseGrant>;
  /**
   * Whether this is the lease that is held. For leases in memory this decides; for those in SQL the write itself checks. It ends
   * only when the write is done: whoever were given the next one before would not see the value yet, and compute it again.
   */
  holds(namespace: string, key: string, token: string): boolean;
  release(namespace: string, key: string, token: string): Promise<void>;
  /** Ends whatever lease there is, because the key was changed. Those in SQL are ended by the write itself. */
  void(namespace: string, key: string): void;
}
