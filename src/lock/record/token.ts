import { GRANTS_PER_EPOCH } from "../../infra/fencing.ts";

export { GRANTS_PER_EPOCH, isToken } from "../../infra/fencing.ts";

/**
 * A fencing token is an epoch and, below it, a count. The count grows with each grant of a lock; the epoch grows for all of them
 * whenever an authority may have forgotten how far it had counted: a Redis that began a new life, or another authority.
 * Together they stay below 2^53: two million epochs of four billion grants of each lock.
 */
export const MOST_EPOCHS = 2 ** 21;

/** The token after this one, which is not below the first of the epoch. `last` is 0 where none was granted. */
export function tokenAfter(last: number, epoch: number): number {
  return Math.max(last, epoch * GRANTS_PER_EPOCH) + 1;
}
