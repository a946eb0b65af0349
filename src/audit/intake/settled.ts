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

export interface SettledOptions {
  readonly recovery: Unsettled;
  readonly queue: Queue | undefined;
  /** Rejects while the archive cannot be asked: then there is no point in waiting. */
  readonly askArchive: () => Promise<unknown>;
}

export function createSettled({ recovery, queue, askArchive }: SettledOptions): Settled {
  async function drained(signal: AbortSignal): Promise<{ degraded: boolean }> {
    if (queue === undefined) return { degraded: false };
    try {
      await queue.drained(signal);
      // It may have been found empty because Redis lost what was in it.
      await recovery.settled(signal);
      return { degraded: false };
    } catch (error) {
      if (signal.aborted || !(error instanceof UnavailableError)) throw error;
      recovery.suspectLoss();
      await recovery.settled(signal);
      return { degraded: true };
    }
  }

  return async (signal) => {
    await askArchive();
    const patience = AbortSignal.timeout(PATIENCE_MS);
    const either = AbortSignal.any([signal, patience]);
    try {
      await recovery.settled(either);
      return await drained(either);
    } catch (error) {
      if (!patience.aborted || signal.aborted) throw error;
      throw new UnavailableError("ARCHIVE_BEHIND", "records acknowledged before this read are still being archived", {
        cause: error,
      });
    }
  };
}
