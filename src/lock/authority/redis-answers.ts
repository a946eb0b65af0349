import { UnavailableError } from "../../infra/failure.ts";
import type { RedisScript } from "../../infra/redis.ts";
import { LockAuthorityChangingError, LockAuthorityUnavailableError } from "../failures.ts";

/** So often a call is sent again when Redis says that it has to be: each time for another reason, if all is well. */
export const MOST_TRIES = 4;

/** As the port says it. */
export function failureOf(error: unknown): unknown {
  if (!(error instanceof UnavailableError)) return error;
  if (error instanceof LockAuthorityUnavailableError || error instanceof LockAuthorityChangingError) return error;
  return new LockAuthorityUnavailableError(error.message, error);
}

/** Somebody else writes to the same Redis. Until that is gone nobody knows who has the lock. */
export class ForeignRecordError extends LockAuthorityUnavailableError {
  constructor() {
    super("what lies in Redis under the key of this lock is not Holdfast's");
  }
}

/** For an answer that the script does not give, or for want of a record to answer from. */
export function unexpected({ name }: RedisScript, answer: unknown): Error {
  if (answer === "foreign") return new ForeignRecordError();
  return new TypeError(`script ${name} answered ${String(answer)}`);
}
