import type { ServedBy } from "../../infra/call.ts";
import type { Claim, ClaimId } from "../record/claim.ts";
import type { ClaimOrder, CompleteOrder, ReleaseOrder } from "../record/decide.ts";

/** A claim with what its result is, as it stood at `nowMs` by the clock of the truth. */
export interface Found {
  readonly claim: Claim;
  /** A serialized Value. Undefined: there is none. */
  readonly value: Uint8Array | undefined;
  readonly nowMs: number;
}

export type Claimed =
  /** `again`: a retry is told what the first attempt was. */
  | { readonly kind: "first"; readonly claim: Claim; readonly nowMs: number; readonly again: boolean }
  | ({ readonly kind: "duplicate" } & Found)
  | { readonly kind: "in_progress"; readonly claim: Claim; readonly nowMs: number };

export type Completed =
  | { readonly completed: true; readonly claim: Claim; readonly again: boolean }
  /** The claim as it stands instead. */
  | { readonly completed: false; readonly current: Found | undefined };

/** Where claims are decided. Each call is one atomic step among all instances, durable when it resolves. */
export interface Truth {
  readonly layer: ServedBy;
  claim(order: ClaimOrder): Promise<Claimed>;
  complete(order: CompleteOrder): Promise<Completed>;
  /** Whether this call removed the claim. */
  release(order: ReleaseOrder): Promise<boolean>;
  /** What is remembered. */
  get(id: ClaimId): Promise<Found | undefined>;
  /** From now on nobody who reads this claim makes a copy of it. */
  forbidCopies(id: ClaimId, token: number): Promise<void>;
  /** Waits for what is under way. */
  close(): Promise<void>;
}
