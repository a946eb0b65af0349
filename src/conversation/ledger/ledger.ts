import type { Order, Outcome } from "../change/order.ts";

/** What came of a write. */
export type CarriedOut = Outcome & {
  /** Redis could not be told: reads come from SQL until it is healed. */
  readonly degraded?: boolean;
};

/** Where all writes of conversations go: one after the other, whichever instance they come from. */
export interface Ledger {
  /** Durable when it resolves. Rejects with a Failure when a rule refuses, and with UnavailableError while SQL is away. */
  carryOut(order: Order): Promise<CarriedOut>;
  close(): Promise<void>;
}
