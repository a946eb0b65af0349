import { Failure } from "../infra/failure.ts";

/** The whole request is over what the server reads. `found` is how the library that reads it puts it, with both sizes. */
export function requestTooLarge(found: string): Failure {
  const message = `the request is over the limit that HOLDFAST_MAX_MESSAGE_BYTES sets: ${found}`;
  return new Failure("too_large", "REQUEST_TOO_LARGE", message);
}
