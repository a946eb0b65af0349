import type { Claim, ClaimId, ClaimState } from "../record/claim.ts";

/** The claim at which a page ended. */
export type ListPlace = Pick<ClaimId, "kind" | "text">;

export interface ListQuery {
  readonly namespace: string;
  /** Only keys that begin so. Empty: also checksums. */
  readonly prefix: string;
  readonly state: ClaimState | undefined;
  /** Empty: any. */
  readonly owner: string;
  readonly limit: number;
  readonly after: ListPlace | undefined;
}

export interface ListPage {
  readonly claims: readonly Claim[];
  readonly nowMs: number;
  /** Where to go on. Undefined: there is nothing more. */
  readonly next: ListPlace | undefined;
}

/** Claims by key, then by checksum. A page ends when it is full, or when it has looked at enough: then others may follow. */
export interface Listing {
  page(query: ListQuery): Promise<ListPage>;
}
