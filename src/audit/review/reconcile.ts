import { setImmediate as immediately } from "node:timers/promises";
import { AuditSequenceState as State } from "../../gen/holdfast/v1/audit_pb.js";
import type { SequenceRange } from "../archive/archive.ts";
import { Ranges } from "../journal/held-ranges.ts";
import type { Tiers } from "./lookup.ts";

/** Sequences that follow each other and are in the same state. */
export interface StateRange extends SequenceRange {
  readonly state: State;
}

/** A part of what the archive holds of a producer. */
export interface ArchivedRun extends SequenceRange {
  readonly retired: boolean;
}

/** Looks through the archive by sequence. */
export interface HeldSequences {
  /** The largest sequence held of a producer, retired ones included; 0: none. */
  last(producer: string): Promise<number>;
  /**
   * What is held from `first` to `last`, rising and without overlap, as far as it got in one step that is never long: up to
   * `until`, included.
   */
  scan(
    producer: string,
    first: number,
    last: number,
  ): Promise<{ readonly runs: readonly ArchivedRun[]; readonly until: number }>;
}

export interface Reconciliation {
  readonly ranges: readonly StateRange[];
  /** Where the next page begins, and where the last of them ends. Undefined: this was the last. */
  readonly next: SequenceRange | undefined;
  /** The largest sequence that is held in any tier; 0: none. */
  readonly lastHeld: number;
}

export interface ReconcileTiers extends Pick<Tiers, "queue" | "journal"> {
  readonly sequences: HeldSequences;
}

/** A page ends after so many steps through the archive, however few ranges they gave. */
const STEPS = 20;

/**
 * Tells of every sequence from `first` to `last` (unset: to the largest that is held) where it is, in at most `most` ranges.
 * Rejects with UnavailableError when the archive or the queue cannot be asked: nothing is called missing because nobody looked.
 */
export async function reconcile(
  { queue, journal, sequences }: ReconcileTiers,
  producer: string,
  asked: { readonly first: number; readonly last: number | undefined },
  most: number,
): Promise<Reconciliation> {
  // Records go from the journal through the queue to the archive. Asked in this order, none slips past.
  const journaled = journal === undefined ? [] : journaledRanges(journal, producer);
  const quarantined = journal?.quarantined(producer) ?? [];
  const queued = rangesOf((await queue?.sequences(producer)) ?? []);
  const lastHeld = Math.max(lastOf(journaled), lastOf(queued), await sequences.last(producer));
  const last = asked.last ?? lastHeld;
  const layers = [
    queued.map((range) => ({ ...range, state: State.QUEUED })),
    // The journal may count what it found to be damaged as held. Sending once more does no harm; not sending would.
    quarantined.map((range) => ({ ...range, state: State.QUARANTINED })),
    journaled.map((range) => ({ ...range, state: State.JOURNALED })),
  ];
  const ranges: StateRange[] = [];
  let next = asked.first;
  for (let step = 0; step < STEPS && next <= last; step++) {
    const { runs, until } = await sequences.scan(producer, next, last);
    const archived = runs.map((run) => ({ ...run, state: run.retired ? State.RETIRED : State.ARCHIVED }));
    for (const range of cover({ first: next, last: until }, [archived, ...layers])) {
      const before = ranges.at(-1);
      if (before?.state === range.state) {
        ranges[ranges.length - 1] = { ...before, last: range.last };
      } else if (ranges.length < most) {
        ranges.push({ first: range.first, last: range.last, state: range.state });
      } else {
        return { ranges, next: { first: range.first, last }, lastHeld };
      }
    }
    next = until + 1;
    // In SQLite a step is one turn of the event loop, and others want theirs.
    await immediately();
  }
  return { ranges, next: next <= last ? { first: next, last } : undefined, lastHeld };
}

/** Cuts a range into what the first layer says of it, and where that says nothing, what the others say. */
function* cover(
  { first, last }: SequenceRange,
  [layer, ...below]: readonly (readonly StateRange[])[],
): Generator<StateRange> {
  if (layer === undefined) {
    yield { first, last, state: State.MISSING };
    return;
  }
  let next = first;
  for (let at = firstReaching(layer, first); next <= last; at++) {
    const range = layer[at];
    const end = Math.min(range?.first ?? Number.POSITIVE_INFINITY, last + 1) - 1;
    if (next <= end) yield* cover({ first: next, last: end }, below);
    if (range === undefined || range.first > last) return;
    yield { first: Math.max(range.first, first), last: Math.min(range.last, last), state: range.state };
    next = range.last + 1;
  }
}

/** The place of the first of these rising ranges that ends at `sequence` or after it. */
function firstReaching(ranges: readonly SequenceRange[], sequence: number): number {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ranges[middle]?.last ?? 0) < sequence) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** What the journal holds of a producer. A record may be in several of its segments. */
function journaledRanges(journal: NonNullable<Tiers["journal"]>, producer: string): readonly SequenceRange[] {
  const ranges = new Ranges();
  for (const { held } of journal.segments()) {
    for (const { first, last } of held.get(producer) ?? []) ranges.add(first, last);
  }
  return [...ranges];
}

function rangesOf(sequences: readonly number[]): readonly SequenceRange[] {
  const ranges = new Ranges();
  for (const sequence of sequences) ranges.add(sequence, sequence);
  return [...ranges];
}

function lastOf(ranges: readonly SequenceRange[]): number {
  return ranges.at(-1)?.last ?? 0;
}
