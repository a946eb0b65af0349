import type { Archive, SequenceRange } from "../archive/archive.ts";
import type { RecordId } from "../record/record.ts";
import { Identities } from "./held-ranges.ts";
import type { HeldRanges, Segment } from "./journal.ts";

/** Finds out what of a segment is not archived. */
export interface ArchiveCheck {
  /** Of a sealed segment: what the archive does not hold. What it was once seen to hold is not asked for again. */
  missing(segment: Segment): Promise<Identities>;
  /** Begins anew with a segment: what it holds has changed. */
  forget(segment: Segment): void;
}

/** Producers of no more records than this are asked for many at a time: there may be as many producers as records. */
const FEW = 3;
const IDS_AT_ONCE = 500;
const RANGES_AT_ONCE = 200;
/** Of a range that is not archived in full, so many sequences are told apart from the rest. */
const CHUNK = 500;

export function createArchiveCheck(archive: Pick<Archive, "countHeld" | "find">): ArchiveCheck {
  const unarchived = new WeakMap<Segment, ReadonlyMap<string, HeldRanges>>();

  /** Those of these ranges in which something is missing. */
  async function incomplete(producer: string, ranges: readonly SequenceRange[]): Promise<readonly SequenceRange[]> {
    const found: SequenceRange[] = [];
    for (let at = 0; at < ranges.length; at += RANGES_AT_ONCE) {
      const some = ranges.slice(at, at + RANGES_AT_ONCE);
      const counts = await archive.countHeld(producer, some);
      found.push(...some.filter(({ first, last }, i) => (counts[i] ?? 0) < last - first + 1));
    }
    return found;
  }

  async function addMissing(ids: readonly RecordId[], missing: Identities): Promise<void> {
    const held = await archive.find(ids);
    for (const [i, { producer, sequence }] of ids.entries()) {
      if (held[i] === undefined) missing.add(producer, sequence, sequence);
    }
  }

  return {
    async missing(segment) {
      const missing = new Identities();
      let few: RecordId[] = [];
      for (const [producer, ranges] of unarchived.get(segment) ?? segment.held) {
        const count = ranges.reduce((sum, { first, last }) => sum + last - first + 1, 0);
        if (count <= FEW) {
          for (const sequence of ranges.flatMap(sequencesOf)) few.push({ producer, sequence });
        } else {
          const parts = (await incomplete(producer, ranges)).flatMap(inChunks);
          for (const { first, last } of await incomplete(producer, parts)) missing.add(producer, first, last);
        }
        if (few.length < IDS_AT_ONCE) continue;
        await addMissing(few, missing);
        few = [];
      }
      if (few.length > 0) await addMissing(few, missing);
      unarchived.set(segment, missing);
      return missing;
    },
    forget: (segment) => unarchived.delete(segment),
  };
}

function sequencesOf({ first, last }: SequenceRange): readonly number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

function inChunks({ first, last }: SequenceRange): readonly SequenceRange[] {
  const chunks: SequenceRange[] = [];
  for (let from = first; from <= last; from += CHUNK)
    chunks.push({ first: from, last: Math.min(last, from + CHUNK - 1) });
  return chunks;
}
