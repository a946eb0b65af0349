import type { Clock } from "../infra/clock.ts";
import { UnavailableError } from "../infra/failure.ts";
import type { Log } from "../infra/log.ts";
import { RedisReplyError } from "../infra/redis-failure.ts";

/**
 * Told of each error for which something else answers. Only some mean that a layer is away; any other is a defect, which the
 * caller need not suffer from, but which must be seen.
 */
export type NoteAbsence = (error: unknown) => void;

/** One line for all that happens within this time: a defect on the path of every call would fill the disk. */
const QUIET_MS = 10_000;

export function createAbsenceNotes(log: Log, clock: Pick<Clock, "monotonic">): NoteAbsence {
  let saidAt = Number.NEGATIVE_INFINITY;
  let unsaid = 0;
  return (error) => {
    if (error instanceof UnavailableError || error instanceof RedisReplyError) return;
    unsaid++;
    if (clock.monotonic() - saidAt < QUIET_MS) return;
    saidAt = clock.monotonic();
    log.error(
      { err: error, times: unsaid },
      "a layer of the cache failed for a reason that should not be: it was passed over",
    );
    unsaid = 0;
  };
}
