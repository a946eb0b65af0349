import { AuditDurability } from "../../gen/holdfast/v1/audit_pb.js";
import type { Archive } from "../archive/archive.ts";
import type { Queue } from "../queue/queue.ts";
import { unseal } from "../record/leaf.ts";
import { REQUEST_PRODUCER, type Sealed } from "../record/record.ts";
import { type Exception, exceptionOf, unlessAway } from "./doubts.ts";

/** Brings records into the archive that do not wait their turn in the queue, and tells the queue of them. */
export interface PastQueue {
  /** What is not simply appended, by its place among the records; undefined: all were. */
  append(records: readonly Sealed[], differing: "refuse" | "keep"): Promise<ReadonlyMap<number, Exception> | undefined>;
  /** Tells the queue what it has not heard of yet, while Redis was away. Does nothing when there is nothing. */
  catchUp(): Promise<void>;
}

/**
 * Without the queue's knowing, it would take the next record under an identity that the archive holds for a new one; and a record
 * that waits in the queue was acknowledged first, so it comes first.
 */
export function createPastQueue(archive: Pick<Archive, "append">, queue: Queue | undefined): PastQueue {
  /** The largest sequence of each producer that the queue has not heard of. */
  let untold = new Map<string, number>();

  async function catchUp(): Promise<void> {
    if (queue === undefined || untold.size === 0) return;
    const marks = untold;
    untold = new Map();
    try {
      await queue.raise(marks);
    } catch (error) {
      for (const [producer, mark] of marks) note(producer, mark);
      throw error;
    }
  }

  function note(producer: string, sequence: number): void {
    if (!producer.startsWith(REQUEST_PRODUCER)) untold.set(producer, Math.max(sequence, untold.get(producer) ?? 0));
  }

  return {
    catchUp,
    async append(records, differing) {
      // What is to be kept in any case may differ from what waits: then the archive puts it aside.
      const waiting = differing === "keep" ? undefined : queue && (await unlessAway(() => queue.find(records)));
      const exceptions = new Map<number, Exception>();
      const first = records.map((record, at) => {
        const leaf = waiting?.[at];
        // What this very call has queued is no other record.
        if (leaf === undefined || Buffer.compare(leaf, record.leaf) === 0) return record;
        exceptions.set(at, exceptionOf(record, leaf, AuditDurability.ARCHIVED));
        return unseal(leaf);
      });
      const placed = await archive.append(first, differing);
      for (const [at, { outcome }] of placed.entries()) {
        if (outcome !== "appended" && !exceptions.has(at)) {
          exceptions.set(at, { outcome, durability: AuditDurability.ARCHIVED });
        }
      }
      if (queue !== undefined) {
        for (const { producer, sequence } of records) note(producer, sequence);
        await unlessAway(catchUp);
      }
      return exceptions.size === 0 ? undefined : exceptions;
    },
  };
}
