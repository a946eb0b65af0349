import { AuditDurability } from "../../gen/holdfast/v1/audit_pb.js";
import { UnavailableError } from "../../infra/failure.ts";
import type { Archive } from "../archive/archive.ts";
import type { Queue, QueueOutcome } from "../queue/queue.ts";
import { sameContent } from "../record/leaf.ts";
import type { Sealed } from "../record/record.ts";

export type Durability = AuditDurability;

/**
 * A record that was not simply appended. "differs": its identity is held with other content. "unsettled": whether it is held
 * cannot be found out now; it was not acknowledged and is to be sent again.
 */
export interface Exception {
  readonly outcome: "duplicate" | "differs" | "unsettled";
  readonly durability: Durability;
}

export interface Settlement {
  /** By their place among the records. Undefined: all were queued. */
  readonly exceptions: ReadonlyMap<number, Exception> | undefined;
  /** The archive could not be asked. */
  readonly degraded: boolean;
}

interface Doubt {
  readonly record: Sealed;
  /** Its place among the records. */
  readonly at: number;
  readonly outcome: QueueOutcome | undefined;
}

/**
 * Finds out about the records that the queue could not place by itself: whether they are held, and with the same content. What
 * is held nowhere is queued. While the archive cannot be asked, a producer that the queue knows is told to wait; one that nobody
 * knows is taken in, and sorted out when its records are archived.
 */
export async function settleDoubts(
  tiers: { readonly queue: Queue; readonly archive: Archive },
  records: readonly Sealed[],
  outcomes: readonly QueueOutcome[],
): Promise<Settlement> {
  const { queue, archive } = tiers;
  const exceptions = new Map<number, Exception>();
  const doubts = records.map((record, at): Doubt => ({ record, at, outcome: outcomes[at] }));
  const strangers = doubts.filter(({ outcome }) => outcome === "stranger");
  const known = doubts.filter(({ outcome }) => outcome === "held" || outcome === "late");
  const introduced = await introduce(tiers, strangers);
  const doubtful = [...known, ...introduced.doubts];
  if (doubtful.length === 0) return { exceptions: undefined, degraded: introduced.degraded };

  let isArchiveAway = false;

  /** Says what became of those that are held, or cannot be looked up, and returns the others. */
  async function tellHeld(asked: readonly Doubt[]): Promise<readonly Doubt[]> {
    const queued = await queue.find(recordsOf(asked));
    const unqueued = asked.filter(({ record, at }, i) => {
      const leaf = queued[i];
      if (leaf !== undefined) exceptions.set(at, exceptionOf(record, leaf, AuditDurability.QUEUED));
      return leaf === undefined;
    });
    if (unqueued.length === 0) return [];
    const archived = await unlessAway(() => archive.find(recordsOf(unqueued)));
    if (archived === undefined) {
      isArchiveAway = true;
      for (const { at } of unqueued) exceptions.set(at, UNSETTLED);
      return [];
    }
    return unqueued.filter(({ record, at }, i) => {
      const held = archived[i];
      if (held !== undefined) exceptions.set(at, exceptionOf(record, held.leaf, AuditDurability.ARCHIVED));
      return held === undefined;
    });
  }

  const missing = await tellHeld(doubtful);
  if (missing.length > 0) {
    // Should the archive hold one after all: it keeps one of each.
    const last = await queue.append({ records: recordsOf(missing), settled: true });
    // Another caller brought it in between, or the same call twice, and perhaps with other content.
    for (const { at } of await tellHeld(missing.filter((_, i) => last[i] !== "queued"))) {
      exceptions.set(at, { outcome: "duplicate", durability: AuditDurability.QUEUED });
    }
  }
  const degraded = introduced.degraded || isArchiveAway;
  return { exceptions: exceptions.size === 0 ? undefined : exceptions, degraded };
}

const UNSETTLED: Exception = { outcome: "unsettled", durability: AuditDurability.UNSPECIFIED };

/** Tells the queue what the archive holds of producers that it does not know, and queues their records. */
async function introduce(
  { queue, archive }: { readonly queue: Queue; readonly archive: Archive },
  strangers: readonly Doubt[],
): Promise<{ readonly doubts: readonly Doubt[]; readonly degraded: boolean }> {
  if (strangers.length === 0) return { doubts: [], degraded: false };
  const producers = new Set(strangers.map(({ record }) => record.producer));
  const seeds = await unlessAway(async () => {
    const found = new Map<string, number>();
    for (const producer of producers) found.set(producer, await archive.lastSequence(producer));
    return found;
  });
  const records = recordsOf(strangers);
  const outcomes = await queue.append(seeds === undefined ? { records, settled: true } : { records, seeds });
  const doubts = strangers.map((one, i) => ({ ...one, outcome: outcomes[i] }));
  return { doubts: doubts.filter(({ outcome }) => outcome !== "queued"), degraded: seeds === undefined };
}

export function isAway(error: unknown): boolean {
  return error instanceof UnavailableError;
}

function recordsOf(doubts: readonly Doubt[]): readonly Sealed[] {
  return doubts.map(({ record }) => record);
}

/** A record of this identity is held. Its leaf is null when retention has dropped it. */
export function exceptionOf(record: Sealed, leaf: Uint8Array | null, durability: Durability): Exception {
  return { outcome: leaf === null || sameContent(leaf, record.leaf) ? "duplicate" : "differs", durability };
}

export async function unlessAway<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (isAway(error)) return undefined;
    throw error;
  }
}
