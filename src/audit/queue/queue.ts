import { UnavailableError } from "../../infra/failure.ts";
import type { RecordId, Sealed } from "../record/record.ts";

/** The queue answers, but has no room: as many records as allowed wait to be archived, or Redis is out of memory. */
export class QueueFullError extends UnavailableError {
  constructor(message: string, details: { readonly cause?: unknown } = {}) {
    super("AUDIT_QUEUE_FULL", message, details);
  }
}

/**
 * What the queue made of a record.
 * - "queued": it is in the queue now.
 * - "held": a record of this identity waits in the queue already; nothing was added. Its content may differ, see `find`.
 * - "late": a larger sequence of its producer has been queued or archived, and it is not in the queue. The archive has to be
 *   asked; if it is not there either, append it with `settled`.
 * - "stranger": the queue knows nothing of its producer. Ask the archive for the largest sequence, and pass it as its seed.
 */
export type QueueOutcome = "queued" | "held" | "late" | "stranger";

export interface QueueAppend {
  readonly records: readonly Sealed[];
  /** The largest archived sequence of producers, where it was asked for; raises what the queue knows of them. */
  readonly seeds?: ReadonlyMap<string, number>;
  /**
   * The archive was asked (or cannot be): add what is not in the queue, whatever its sequence. The archive still keeps one of
   * each identity.
   */
  readonly settled?: boolean;
}

export interface QueueCondition {
  /** Records in the queue that are not archived. */
  readonly unarchived: number;
  /** What they take, in bytes, as far as Redis says; 0 when it does not. */
  readonly bytes: number;
  /** accept_time of the oldest of them, in microseconds; undefined: none. */
  readonly oldestAcceptUs: number | undefined;
  /** Entries of the stream that are not ours and stay in it, as far as they were looked at. */
  readonly foreign: number;
  /** Entries that could not be read, and were put aside. */
  readonly quarantined: number;
}

/** What this instance has to do with the queue. */
export interface QueueTraffic {
  /** Records that it has brought so far, those that were known already included. */
  readonly appended: number;
  /** Whether someone waits in `drained`. */
  readonly awaited: boolean;
}

/**
 * Records on their way to the archive: the Redis stream. Every call rejects with UnavailableError while Redis is away, and
 * append with QueueFullError when there is no room; then nothing was queued, as far as is known: a call that was cut off may have
 * been carried out.
 */
export interface Queue {
  readonly traffic: QueueTraffic;
  /** Appends in this order, atomically. */
  append(append: QueueAppend): Promise<readonly QueueOutcome[]>;
  /** Sequences up to these were archived past the queue: it is to know of them. */
  raise(marks: ReadonlyMap<string, number>): Promise<void>;
  /** The leaves of those that wait in the queue, in the order asked for. */
  find(ids: readonly RecordId[]): Promise<readonly (Uint8Array | undefined)[]>;
  /** The sequences of a producer that wait in the queue, rising. */
  sequences(producer: string): Promise<readonly number[]>;
  /** The largest sequence of a producer that was queued; undefined: the queue does not know. */
  lastSequence(producer: string): Promise<number | undefined>;
  /** Resolves when everything that is in the queue at the time of the call is archived. Rejects when the signal is aborted. */
  drained(signal: AbortSignal): Promise<void>;
  condition(): Promise<QueueCondition>;
}
