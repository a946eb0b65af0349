import type { Claim, ClaimId } from "../record/claim.ts";

/** What a copy says of a completed claim. */
export interface Copy {
  /** Of the call that claimed it, where that completed it at once. Empty: none. */
  readonly requestId: string;
  /** The serialized reply of a Claim that comes second. */
  readonly reply: Uint8Array;
  /**
   * Whether nothing of it can have been forgotten when it was read. If not, it is as good as what this instance knew when it last heard
   * of the truth.
   */
  readonly isCertain: boolean;
}

/** Taken before the truth is asked, so that a copy of what it says is known to be no younger. */
export interface Moment {
  readonly generation: number;
  /** That the server of the copy was in. */
  readonly life: string;
  /** By the monotonic clock. */
  readonly atMs: number;
}

/** Copies of completed claims, so that most duplicates need not ask the truth, and are told when it is away. */
export interface Copies {
  /** Never rejects. Undefined: there is none that may be believed. */
  read(id: ClaimId): Promise<Copy | undefined>;
  /** Undefined: no copies are made now. */
  moment(id: ClaimId): Moment | undefined;
  /** In the background. `nowMs`: when the truth said so, by its own clock. */
  fill(moment: Moment | undefined, claim: Claim, nowMs: number, reply: Uint8Array): void;
  /**
   * Before a completed claim is forgotten, and after copies of it were forbidden: when it resolves, no instance believes one any more,
   * nor will. Rejects when that cannot be seen to.
   */
  forget(id: ClaimId, token: number): Promise<void>;
  /** Whether copies are believed now, without asking the truth. */
  readonly areCertain: boolean;
  /** Waits for what is under way. */
  close(): Promise<void>;
}
