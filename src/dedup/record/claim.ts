import type { NamedRequest } from "../../infra/named-request.ts";

/** What is to be done once. A key and a checksum never meet. */
export interface ClaimId {
  readonly namespace: string;
  readonly kind: "key" | "checksum";
  /** The key; or the checksum in hexadecimal, which sorts as its bytes do. */
  readonly text: string;
}

/** Who works on a thing, or what became of it, as the truth keeps it. Times are milliseconds of the truth's clock. */
export interface Claim {
  readonly id: ClaimId;
  /** Larger than those of all earlier claims of the same id. */
  readonly token: number;
  /** "released": given up by who had it, and remembered only so that attempts are counted on. */
  readonly status: "in_progress" | "completed" | "released";
  readonly owner: string;
  readonly attempt: number;
  /** For how long it is remembered once it is completed. */
  readonly ttlMs: number;
  readonly claimMs: number;
  /** When the lease ends. 0 unless in progress. */
  readonly leaseEndMs: number;
  readonly completeMs: number | undefined;
  /** When it is forgotten. */
  readonly expireMs: number;
  readonly request: NamedRequest | undefined;
  /** Completed by the call that claimed it. */
  readonly atOnce: boolean;
  /** Undefined: there is no result. */
  readonly resultBytes: number | undefined;
  /** Whether copies of it may be made, outside of the truth. */
  readonly copyable: boolean;
}

export type ClaimState = "in_progress" | "abandoned" | "completed";

/** How it stands. Undefined: as if it were not there. */
export function stateOf(claim: Claim, nowMs: number): ClaimState | undefined {
  const { status, expireMs, leaseEndMs } = claim;
  if (expireMs <= nowMs || status === "released") return undefined;
  if (status === "completed") return "completed";
  return leaseEndMs > nowMs ? "in_progress" : "abandoned";
}

/** The same for all that name the same thing, and for no others. */
export function textOf({ namespace, kind, text }: ClaimId): string {
  // No namespace has a slash in it.
  return `${namespace}/${kind}/${text}`;
}
