import { AuditDurability } from "../../gen/holdfast/v1/audit_pb.js";
import type { ServedBy } from "../../infra/call.ts";
import { Failure, UnavailableError } from "../../infra/failure.ts";
import type { Archive } from "../archive/archive.ts";
import type { Journal } from "../journal/journal.ts";
import type { Queue } from "../queue/queue.ts";
import { idOf, type Sealed } from "../record/record.ts";
import { type Durability, type Exception, isAway, settleDoubts } from "./doubts.ts";
import { createPastQueue } from "./past-queue.ts";

/** What became of records that were to be kept. */
export interface Kept {
  /** Of all that are not exceptions. */
  readonly durability: Durability;
  /** By their place among the records. Undefined: none. */
  readonly exceptions: ReadonlyMap<number, Exception> | undefined;
  /** A tier was away, so that the records are less safe than configured, or took the slow way. */
  readonly degraded: boolean;
  readonly servedBy: ServedBy;
}

/** What has come in since the start, in records. */
export interface IntakeCounts {
  readonly queued: number;
  readonly archived: number;
  readonly journaled: number;
  readonly duplicates: number;
  readonly refused: number;
  /** Of those archived: because Redis or the journal did not take them. */
  readonly pastRedis: number;
}

export interface Intake {
  readonly counts: IntakeCounts;
  /**
   * Keeps records as safely as configured, and at least as `minimum` says (UNSPECIFIED: the journal and one tier behind it, or
   * the journal alone when none answers). Rejects with UnavailableError when that cannot be: then some may have been kept.
   */
  keep(records: readonly Sealed[], minimum: Durability): Promise<Kept>;
  /** Redis answers again: what went past it meanwhile is told to the queue. */
  queueBack(): Promise<void>;
  /** Brings journaled records to a tier behind the journal, whichever answers; for those who replay it. */
  deliver(records: readonly Sealed[]): Promise<void>;
}

export interface IntakeOptions {
  readonly archive: Archive;
  readonly journal: Journal;
  /** Where there is Redis. It rejects at once while Redis fails. */
  readonly queue: Queue | undefined;
  /** Told of records that are in the journal alone. */
  readonly onLocal: (records: readonly Sealed[]) => void;
}

class DurabilityNotReachedError extends UnavailableError {
  constructor(cause: unknown) {
    super("DURABILITY_NOT_REACHED", "the durability asked for was not reached; try again with the same identities", {
      cause,
    });
  }
}

/** The write path: journal and queue side by side, else the archive, else the journal alone. */
export function createIntake({ archive, journal, queue, onLocal }: IntakeOptions): Intake {
  const pastQueue = createPastQueue(archive, queue);
  const counts = { queued: 0, archived: 0, journaled: 0, duplicates: 0, refused: 0, pastRedis: 0 };

  function count(records: readonly Sealed[], kept: Kept): Kept {
    let appended = records.length;
    for (const { outcome } of kept.exceptions?.values() ?? []) {
      appended--;
      if (outcome === "duplicate") counts.duplicates++;
      else if (outcome === "differs") counts.refused++;
    }
    if (kept.durability === AuditDurability.QUEUED) counts.queued += appended;
    else if (kept.durability === AuditDurability.ARCHIVED) counts.archived += appended;
    else counts.journaled += appended;
    if (kept.durability === AuditDurability.ARCHIVED && kept.degraded) counts.pastRedis += appended;
    return kept;
  }

  async function intoArchive(records: readonly Sealed[], degraded: boolean): Promise<Kept> {
    const exceptions = await pastQueue.append(records, "refuse");
    return { durability: AuditDurability.ARCHIVED, exceptions, degraded, servedBy: archive.kind };
  }

  async function intoQueue(queue: Queue, records: readonly Sealed[]): Promise<Kept> {
    await pastQueue.catchUp();
    const outcomes = await queue.append({ records });
    if (outcomes.every((outcome) => outcome === "queued")) return QUEUED;
    return { ...QUEUED, ...(await settleDoubts({ queue, archive }, records, outcomes)) };
  }

  async function throughQueue(queue: Queue, records: readonly Sealed[], minimum: Durability): Promise<Kept> {
    const [journaled, queued] = await Promise.allSettled([journal.append(records), intoQueue(queue, records)]);
    if (journaled.status === "fulfilled" && queued.status === "fulfilled") return queued.value;
    rethrowDefects(journaled, queued);
    // One of the two is away: the archive makes up for either.
    const isJournaled = journaled.status === "fulfilled";
    return intoArchive(records, true).catch((error) => beyondArchive(records, minimum, isJournaled, error));
  }

  async function beyondArchive(records: readonly Sealed[], minimum: Durability, journaled: boolean, error: unknown) {
    if (!isAway(error)) throw error;
    if (minimum > AuditDurability.JOURNALED) throw new DurabilityNotReachedError(error);
    if (!journaled) await journal.append(records);
    onLocal(records);
    return JOURNALED;
  }

  return {
    counts,
    queueBack: () => pastQueue.catchUp(),
    async keep(records, minimum) {
      if (queue !== undefined && minimum !== AuditDurability.ARCHIVED) {
        return count(records, await throughQueue(queue, records, minimum));
      }
      const kept = await intoArchive(records, false).catch((error) => beyondArchive(records, minimum, false, error));
      return count(records, kept);
    },
    async deliver(records) {
      try {
        await pastQueue.append(records, "keep");
      } catch (error) {
        if (!isAway(error) || queue === undefined) throw error;
        await queue.append({ records, settled: true });
      }
    },
  };
}

const QUEUED: Kept = {
  durability: AuditDurability.QUEUED,
  exceptions: undefined,
  degraded: false,
  servedBy: "redis",
};

const JOURNALED: Kept = {
  durability: AuditDurability.JOURNALED,
  exceptions: undefined,
  degraded: true,
  servedBy: "journal",
};

/** Why a record was not taken in. */
export function refusalOf(record: Sealed, outcome: "differs" | "unsettled"): Failure {
  const id = idOf(record);
  if (outcome === "unsettled") {
    return new UnavailableError(
      "IDENTITY_UNSETTLED",
      `whether ${id} is held cannot be looked up: SQL does not answer`,
      { metadata: { id } },
    );
  }
  return new Failure("already_exists", "IDENTITY_REUSED", `another record is held as ${id}; it stays as it was`, {
    metadata: { id },
  });
}

/** Only that something is away is made up for by something else. */
function rethrowDefects(...settled: readonly PromiseSettledResult<unknown>[]): void {
  for (const one of settled) if (one.status === "rejected" && !isAway(one.reason)) throw one.reason;
}
