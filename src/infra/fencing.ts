import type { Fencing } from "../gen/holdfast/v1/fencing_pb.js";
import { Failure } from "./failure.ts";
import type { Fields } from "./fields.ts";
import { lockNameFault } from "./lock-name.ts";

/** What a write says to prove that it still holds the lock that protects it. */
export interface Fence {
  readonly lock: string;
  readonly token: number;
}

export const GRANTS_PER_EPOCH = 2 ** 32;

/** Tokens are counted anew in each epoch, from 1: what lies below its first was never granted to anybody. */
export function isToken(token: number): boolean {
  return token % GRANTS_PER_EPOCH !== 0;
}

/**
 * Whether a write may still be made under a lock. Both reject with FencingTokenStaleError where a newer token is known,
 * FencingTokenUnknownError where this one was never granted, and UnavailableError where it cannot be told: then the write must not
 * be made.
 */
export interface Fences {
  /** For a write that compares tokens in its own transaction: this only makes sure that the token was granted. */
  admit(fence: Fence): Promise<void>;
  /** For a write elsewhere: besides, from now on SQL knows the token, and all older ones are refused. */
  raise(fence: Fence): Promise<void>;
}

/** A newer token of the lock was seen, or granted: whoever has this one has lost the lock. */
export class FencingTokenStaleError extends Failure {
  readonly newest: number;

  constructor({ lock, token }: Fence, newest: number) {
    super(
      // Not a conflict: nothing is won by trying again with the same token.
      "precondition",
      "FENCING_TOKEN_STALE",
      `fencing.token: ${token} of the lock "${lock}" is older than ${newest}: another holder came after it`,
      { metadata: { field: "fencing.token", lock, token: String(token), newest: String(newest) } },
    );
    this.newest = newest;
  }
}

/** No such token was granted, or who decides about locks has forgotten it. */
export class FencingTokenUnknownError extends Failure {
  constructor({ lock, token }: Fence, newest: number) {
    super(
      "precondition",
      "FENCING_TOKEN_UNKNOWN",
      `fencing.token: ${token} of the lock "${lock}" is not known to be granted; the newest known is ${newest || "none"}`,
      { metadata: { field: "fencing.token", lock, token: String(token), newest: String(newest) } },
    );
  }
}

/** What a request says of its lock. Undefined when it says nothing, or what was refused. */
export function fenceOf(fields: Fields, fencing: Fencing | undefined): Fence | undefined {
  if (fencing === undefined) return undefined;
  const { lock, token } = fencing;
  const before = fields.violations.length;
  const fault = lockNameFault(lock);
  if (fault !== undefined) fields.refuse("fencing.lock", fault);
  if (token === 0n) fields.refuse("fencing.token", "is required: the token that came with the grant");
  else if (token > BigInt(Number.MAX_SAFE_INTEGER)) fields.refuse("fencing.token", "is larger than any token");
  return fields.violations.length === before ? { lock, token: Number(token) } : undefined;
}
