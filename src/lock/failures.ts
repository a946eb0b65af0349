import { Failure, UnavailableError } from "../infra/failure.ts";

/** Whoever decides about locks cannot be asked, and nobody else may guess. */
export class LockAuthorityUnavailableError extends UnavailableError {
  constructor(why: string, cause?: unknown) {
    super("LOCK_AUTHORITY_UNAVAILABLE", `locks cannot be decided: ${why}`, { cause });
  }
}

/** One authority has ended and the next may not grant yet. */
export class LockAuthorityChangingError extends UnavailableError {
  constructor(why: string, retryAfterMs?: number) {
    const howLong = retryAfterMs === undefined ? "" : `, for ${Math.ceil(retryAfterMs / 1000)} s at most`;
    super("LOCK_AUTHORITY_CHANGING", `who decides about locks is changing: ${why}${howLong}`, {
      ...(retryAfterMs !== undefined && { retryAfterMs: Math.max(1, Math.ceil(retryAfterMs)) }),
    });
  }
}

export class LockAttemptOverError extends Failure {
  constructor(name: string, requestId: string) {
    super(
      "conflict",
      "LOCK_ATTEMPT_OVER",
      "request_id: this attempt took the lock, and its lease is over; take the lock with another request_id",
      { metadata: { field: "request_id", lock: name, request_id: requestId } },
    );
  }
}

export class LockQueueFullError extends Failure {
  constructor(name: string, waiting: number) {
    super("too_large", "LOCK_QUEUE_FULL", `${waiting} callers wait for locks on this instance already`, {
      metadata: { lock: name },
      retryAfterMs: 1000,
    });
  }
}
