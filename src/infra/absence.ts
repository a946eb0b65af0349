import type { Clock } from "./clock.ts";
import { UnavailableError } from "./failure.ts";
import type { Log } from "./log.ts";
import { RedisReplyError } from "./redis-failure.ts";

/**
 * Told of each error for which something else answers. Only some mean that a layer is away; any other is a defect, which the
 * caller need not suffer from, but which must be seen.
 */
export type NoteAbsence = (error: unknown) => void;

/** One line for all that happens within this time: a defect on the path of every call would fill the disk. */
const QUIET_MS = 10_000;

/** `part` is what the layers belong to, for the message. */
export function createAbsenceNotes(part: string, log: Log, clock: Pick<Clock, "monotonic">): NoteAbsence {
  let saidAt = Number.NEGATIVE_INFINITY;
  let unsaid = 0;
  return (error) => {
    if (error instanceof UnavailableError || error instanceof RedisReplyError) return;
    unsaid++;
    if (clock.monotonic() - saidAt < QUIET_MS) return;
    saidAt = clock.monotonic();
    log.error(
      { err: error, times: unsaid },
      `a layer of ${part} failed for a reason that should not be: it was passed over`,
    );
    unsaid = 0;
  };
}
