import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Queue } from "../queue/queue.ts";

/** What must be archived before a read, and was said to be kept. */
export interface Unsettled {
  /** Resolves when no record is in this instance's journal alone. Rejects when the signal is aborted. */
  settled(signal: AbortSignal): Promise<void>;
  /** Records that were queued may be gone with Redis, or cannot be seen: what this instance journaled is to be sent again. */
  suspectLoss(): void;
}

/**
 * Resolves when every record that was acknowledged before is in the archive, so that whoever reads it finds them. Degraded:
 * records that another instance queued may be missing, because Redis cannot be asked for them.
 */
export type Settled = (signal: AbortSignal) => Promise<{ readonly degraded: boolean }>;

/** Reads that wait longer than this are told so: the archive is far behind, or nobody brings records into it. */
const PATIENCE_MS = 10_000;

/** Redis may have lost what others queued: for so long they may not have noticed, or not have sent it again. */
const OTHERS_NOTICE_MS = 15_000;

export interface SettledOptions {
  readonly recovery: Unsettled;
  readonly queue: Queue | undefined;
  /** Rejects while the archive cannot be asked: then there is no point in waiting. */
  readonly askArchive: () => Promise<unknown>;
  /** Whether no other instance brings records to this archive: then what is settled here is settled. */
  readonly alone: boolean;
  readonly clock: Clock;
  readonly patienceMs?: number;
}

export interface Barrier {
  readonly settled: Settled;
  /** Redis was seen to have lost what was queued, or cannot be seen. */
  suspectLoss(): void;
}

export function createBarrier(options: SettledOptions): Barrier {
  const { recovery, queue, askArchive, alone, clock, patienceMs = PATIENCE_MS } = options;
  let lossSeenAt = Number.NEGATIVE_INFINITY;

  function othersMayLag(): boolean {
    return !alone && clock.monotonic() - lossSeenAt < OTHERS_NOTICE_MS;
  }

  async function drained(from: Queue, signal: AbortSignal): Promise<{ degraded: boolean }> {
    try {
      await from.drained(signal);
      // It may have been found empty because Redis lost what was in it.
      await recovery.settled(signal);
      return { degraded: othersMayLag() };
    } catch (error) {
      if (signal.aborted || !(error instanceof UnavailableError)) throw error;
      recovery.suspectLoss();
      await recovery.settled(signal);
      return { degraded: !alone };
    }
  }

  async function settled(signal: AbortSignal): Promise<{ degraded: boolean }> {
    await askArchive();
    if (queue === undefined) {
      await recovery.settled(signal);
      return { degraded: false };
    }
    // Not AbortSignal.timeout: nearly every read is done at once, and would leave its timer behind.
    const patience = new AbortController();
    const timer = setTimeout(() => patience.abort(), patienceMs).unref();
    const either = AbortSignal.any([signal, patience.signal]);
    try {
      await recovery.settled(either);
      return await drained(queue, either);
    } catch (error) {
      if (!patience.signal.aborted || signal.aborted) throw error;
      throw new UnavailableError("ARCHIVE_BEHIND", "records acknowledged before this read are still being archived", {
        cause: error,
      });
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    settled,
    suspectLoss() {
      lossSeenAt = clock.monotonic();
      recovery.suspectLoss();
    },
  };
}
