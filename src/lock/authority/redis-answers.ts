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

export function unexpected({ name }: RedisScript, answer: unknown): TypeError {
  return new TypeError(`script ${name} answered ${String(answer)}`);
}
