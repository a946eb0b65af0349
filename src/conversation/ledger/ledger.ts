import type { Order, Outcome } from "../change/order.ts";
import type { Held } from "../record/conversation.ts";

/** A committed change, for who keeps copies and who watches. */
export interface Committed {
  readonly after: Held;
  /** The state as it is now, if the change brought it. */
  readonly state: Uint8Array | undefined;
}

/** Where all writes of conversations go: one after the other, whichever instance they come from. */
export interface Ledger {
  /** Durable when it resolves. Rejects with a Failure when a rule refuses, and with UnavailableError while SQL is away. */
  carryOut(order: Order): Promise<Outcome>;
  close(): Promise<void>;
}
