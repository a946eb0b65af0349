import { AuditDurability } from "../gen/holdfast/v1/audit_pb.js";
import type { Breaker } from "../infra/breaker.ts";
import type { ServedBy } from "../infra/call.ts";
import { Failure, UnavailableError } from "../infra/failure.ts";
import type { Archive, Placed } from "./archive.ts";
import type { Journal } from "./journal.ts";
import { sameContent } from "./leaf.ts";
import { type Queue, QueueFullError } from "./queue.ts";
import { idOf, type Sealed } from "./record.ts";

export type Durability = AuditDurability;

/** A record that was not simply appended. */
export interface Exception {
  readonly outcome: "duplicate" | "differs";
  readonly durability: Durability;
}

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
  /** Of those archived: because Redis was away or full. */
  readonly pastRedis: number;
}

export interface Intake {
  readonly counts: IntakeCounts;
  /**
   * Keeps records as safely as configured, and at least as `minimum` says (UNSPECIFIED: the journal and one tier behind it, or
   * the journal alone when none answers). Rejects with UnavailableError when that cannot be: then some may have been kept.
   */
  keep(records: readonly Sealed[], minimum: Durability): Promise<Kept>;
  /** Brings journaled records to a tier behind the journal, whichever answers; for those who replay it. */
  deliver(records: readonly Sealed[]): Promise<void>;
}

export interface IntakeOptions {
  readonly archive: Archive;
  readonly journal: Journal;
  /** Where there is Redis. Its breaker keeps calls away from it while it fails. */
  readonly queue: { readonly queue: Queue; readonly breaker: Breaker } | undefined;
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
export function createIntake({ archive, journal, queue: redis, onLocal }: IntakeOptions): Intake {
  const counts = { queued: 0, archived: 0, journaled: 0, duplicates: 0, refused: 0, pastRedis: 0 };

  function count(records: readonly Sealed[], kept: Kept): Kept {
    let appended = records.length;
    for (const { outcome } of kept.exceptions?.values() ?? []) {
      appended--;
      if (outcome === "duplicate") counts.duplicates++;
      else counts.refused++;
    }
    if (kept.durability === AuditDurability.QUEUED) counts.queued += appended;
    else if (kept.durability === AuditDurability.ARCHIVED) counts.archived += appended;
    else counts.journaled += appended;
    if (kept.durability === AuditDurability.ARCHIVED && kept.degraded) counts.pastRedis += appended;
    return kept;
  }

  async function intoArchive(records: readonly Sealed[], degraded: boolean): Promise<Kept> {
    const placed = await archive.append(records, "refuse");
    return { ...archived(placed), degraded, servedBy: archive.kind };
  }

  async function guarded<T>(work: (queue: Queue) => Promise<T>): Promise<T> {
    if (redis === undefined) throw new Error("there is no queue");
    // A queue that is full is there: its refusal must not open the breaker.
    let full: QueueFullError | undefined;
    const answer = await redis.breaker.execute(async () => {
      try {
        return await work(redis.queue);
      } catch (error) {
        if (!(error instanceof QueueFullError)) throw error;
        full = error;
        return undefined;
      }
    });
    if (answer === undefined) throw full ?? new Error("the queue gave no answer");
    return answer;
  }

  async function intoQueue(records: readonly Sealed[]): Promise<Kept> {
    const outcomes = await guarded((queue) => queue.append({ records }));
    const doubtful = outcomes.flatMap((outcome, at) => (outcome === "queued" ? [] : [at]));
    if (doubtful.length === 0) return QUEUED;
    const exceptions = new Map<number, Exception>();
    const degraded = await settleDoubts(records, outcomes, exceptions);
    return { ...QUEUED, degraded, exceptions: exceptions.size === 0 ? undefined : exceptions };
  }

  /** Finds out about those that the queue could not place. Returns whether the archive could not be asked. */
  async function settleDoubts(
    records: readonly Sealed[],
    outcomes: readonly string[],
    exceptions: Map<number, Exception>,
  ): Promise<boolean> {
    const all = records.map((record, at) => ({ record, at }));
    let degraded = false;
    let doubts = all
      .filter(({ at }) => outcomes[at] !== "queued")
      .map((one) => ({ ...one, outcome: outcomes[one.at] }));
    const strangers = doubts.filter(({ outcome }) => outcome === "stranger");
    if (strangers.length > 0) {
      const seeds = await seedsOf(new Set(strangers.map(({ record }) => record.producer)));
      degraded ||= seeds === undefined;
      const again = await guarded((queue) =>
        queue.append({ records: strangers.map(({ record }) => record), ...(seeds ? { seeds } : { settled: true }) }),
      );
      doubts = doubts
        .filter(({ outcome }) => outcome !== "stranger")
        .concat(
          strangers.map((one, i) => ({ ...one, outcome: again[i] })).filter(({ outcome }) => outcome !== "queued"),
        );
    }
    if (doubts.length === 0) return degraded;
    const queued = await guarded((queue) => queue.find(doubts.map(({ record }) => record)));
    const unplaced = doubts.filter(({ record, at }, i) => {
      const leaf = queued[i];
      if (leaf !== undefined) exceptions.set(at, exceptionOf(record, leaf, AuditDurability.QUEUED));
      return leaf === undefined;
    });
    if (unplaced.length === 0) return degraded;
    const held = await unlessAway(() => archive.find(unplaced.map(({ record }) => record)));
    degraded ||= held === undefined;
    const missing = unplaced.filter(({ record, at }, i) => {
      const found = held?.[i];
      if (found !== undefined) exceptions.set(at, exceptionOf(record, found.leaf, AuditDurability.ARCHIVED));
      return found === undefined;
    });
    if (missing.length === 0) return degraded;
    // Should the archive hold one after all, or another caller be sending it too: the archive keeps one of each.
    const last = await guarded((queue) =>
      queue.append({ records: missing.map(({ record }) => record), settled: true }),
    );
    for (const [i, { at }] of missing.entries()) {
      if (last[i] !== "queued") exceptions.set(at, { outcome: "duplicate", durability: AuditDurability.QUEUED });
    }
    return degraded;
  }

  /** What the archive holds of producers; undefined when it cannot be asked. */
  async function seedsOf(producers: ReadonlySet<string>): Promise<ReadonlyMap<string, number> | undefined> {
    return unlessAway(async () => {
      const seeds = new Map<string, number>();
      for (const producer of producers) seeds.set(producer, await archive.lastSequence(producer));
      return seeds;
    });
  }

  async function throughQueue(records: readonly Sealed[], minimum: Durability): Promise<Kept> {
    const [journaled, queued] = await Promise.allSettled([journal.append(records), intoQueue(records)]);
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
    async keep(records, minimum) {
      if (redis !== undefined && minimum !== AuditDurability.ARCHIVED) {
        return count(records, await throughQueue(records, minimum));
      }
      const kept = await intoArchive(records, false).catch((error) => beyondArchive(records, minimum, false, error));
      return count(records, kept);
    },
    async deliver(records) {
      try {
        await archive.append(records, "keep");
      } catch (error) {
        if (!(error instanceof UnavailableError) || redis === undefined) throw error;
        await guarded((queue) => queue.append({ records, settled: true }));
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

/** What is thrown for a record that is held with other content. */
export function identityReused(record: Sealed): Failure {
  const id = idOf(record);
  return new Failure("already_exists", "IDENTITY_REUSED", `another record is held as ${id}; it stays as it was`, {
    metadata: { id },
  });
}

function archived(placed: readonly Placed[]): Pick<Kept, "durability" | "exceptions"> {
  let exceptions: Map<number, Exception> | undefined;
  for (const [at, { outcome }] of placed.entries()) {
    if (outcome === "appended") continue;
    exceptions ??= new Map();
    exceptions.set(at, { outcome, durability: AuditDurability.ARCHIVED });
  }
  return { durability: AuditDurability.ARCHIVED, exceptions };
}

/** A record of this identity is held. Its leaf is null when retention has dropped it. */
function exceptionOf(record: Sealed, leaf: Uint8Array | null, durability: Durability): Exception {
  return { outcome: leaf === null || sameContent(leaf, record.leaf) ? "duplicate" : "differs", durability };
}

async function unlessAway<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof UnavailableError) return undefined;
    throw error;
  }
}

/** Only that something is away is made up for by something else. */
function rethrowDefects(...settled: readonly PromiseSettledResult<unknown>[]): void {
  for (const one of settled) if (one.status === "rejected" && !isAway(one.reason)) throw one.reason;
}

function isAway(error: unknown): boolean {
  return error instanceof UnavailableError;
}
