import type { SequenceRange } from "../archive/archive.ts";
import type { RecordId } from "../record/record.ts";
import type { HeldRanges } from "./journal.ts";

/** Ranges that wait to be merged, at most, before they are: merging costs as much as there is. */
const MOST_LOOSE = 256;

/**
 * Sequences of one producer: [first, last, first, last, ...], rising, with a gap between ranges. Plain numbers in one array
 * take a fraction of what an object a range would.
 */
export class Ranges {
  #edges: number[] = [];
  /** Ranges that came out of their order, not merged yet. */
  #loose: number[] = [];

  add(first: number, last: number): void {
    const edges = this.#edges;
    const end = edges.length - 1;
    const latest = edges[end];
    if (latest === undefined || first > latest + 1) edges.push(first, last);
    else if (first === latest + 1) edges[end] = last;
    else this.#addLoose(first, last);
  }

  remove(first: number, last: number): void {
    const edges = this.#merged();
    const kept: number[] = [];
    const from = rangeAt(edges, first);
    let at = from;
    for (; at < edges.length; at += 2) {
      const [low = 0, high = 0] = [edges[at], edges[at + 1]];
      if (low > last) break;
      if (low < first) kept.push(low, first - 1);
      if (high > last) kept.push(last + 1, high);
    }
    edges.splice(from, at - from, ...kept);
  }

  has(sequence: number): boolean {
    return this.overlaps(sequence, sequence);
  }

  overlaps(first: number, last: number): boolean {
    const edges = this.#merged();
    const low = edges[rangeAt(edges, first)];
    return low !== undefined && low <= last;
  }

  get isEmpty(): boolean {
    return this.#edges.length === 0;
  }

  /** How many sequences there are. */
  get count(): number {
    let count = 0;
    for (const { first, last } of this) count += last - first + 1;
    return count;
  }

  *[Symbol.iterator](): Generator<SequenceRange> {
    const edges = this.#merged();
    for (let at = 0; at < edges.length; at += 2) yield { first: edges[at] ?? 0, last: edges[at + 1] ?? 0 };
  }

  #addLoose(first: number, last: number): void {
    this.#loose.push(first, last);
    // In proportion to what there is, so that a producer which counts down does not cost the square of its records.
    if (this.#loose.length > Math.max(MOST_LOOSE, this.#edges.length / 2)) this.#merged();
  }

  #merged(): number[] {
    if (this.#loose.length === 0) return this.#edges;
    const pairs: [number, number][] = [];
    for (const list of [this.#edges, this.#loose]) {
      for (let at = 0; at < list.length; at += 2) pairs.push([list[at] ?? 0, list[at + 1] ?? 0]);
    }
    pairs.sort(([a], [b]) => a - b);
    const edges: number[] = [];
    for (const [first, last] of pairs) {
      const latest = edges[edges.length - 1];
      if (latest === undefined || first > latest + 1) edges.push(first, last);
      else if (last > latest) edges[edges.length - 1] = last;
    }
    this.#edges = edges;
    this.#loose = [];
    return edges;
  }
}

/** Where the first range begins that ends at this sequence or behind it. */
function rangeAt(edges: readonly number[], sequence: number): number {
  let [low, high] = [0, edges.length / 2];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((edges[middle * 2 + 1] ?? 0) < sequence) low = middle + 1;
    else high = middle;
  }
  return low * 2;
}

/**
 * A set of record identities: ranges by producer. Very many producers have a single record, so one sequence is kept as a bare
 * number.
 */
export class Identities implements ReadonlyMap<string, HeldRanges> {
  readonly #byProducer = new Map<string, number | Ranges>();

  add(producer: string, first: number, last: number): void {
    const known = this.#byProducer.get(producer);
    if (known === undefined && first === last) {
      this.#byProducer.set(producer, first);
    } else if (known !== first || first !== last) {
      const ranges = known instanceof Ranges ? known : rangesOf(known);
      ranges.add(first, last);
      if (ranges !== known) this.#byProducer.set(producer, ranges);
    }
  }

  addAll(others: ReadonlyMap<string, HeldRanges>): void {
    for (const [producer, ranges] of others) {
      for (const { first, last } of ranges) this.add(producer, first, last);
    }
  }

  remove(producer: string, first: number, last: number): void {
    const known = this.#byProducer.get(producer);
    if (known === undefined) return;
    if (known instanceof Ranges) known.remove(first, last);
    if (known instanceof Ranges ? known.isEmpty : first <= known && known <= last) this.#byProducer.delete(producer);
  }

  removeAll(others: ReadonlyMap<string, HeldRanges>): void {
    for (const [producer] of this.#byProducer) {
      for (const { first, last } of others.get(producer) ?? []) this.remove(producer, first, last);
    }
  }

  contains({ producer, sequence }: RecordId): boolean {
    return overlap(this.#byProducer.get(producer), sequence, sequence);
  }

  /** Those that are in both. */
  common(others: ReadonlyMap<string, HeldRanges>): Identities {
    const both = new Identities();
    for (const [producer, ranges] of this) {
      const theirs = others.get(producer) ?? [];
      let from = 0;
      for (const { first, last } of ranges) {
        while ((theirs[from]?.last ?? first) < first) from += 1;
        for (let at = from; at < theirs.length; at++) {
          const their = theirs[at];
          if (their === undefined || their.first > last) break;
          both.add(producer, Math.max(first, their.first), Math.min(last, their.last));
        }
      }
    }
    return both;
  }

  /** How many identities there are. */
  get count(): number {
    let count = 0;
    for (const known of this.#byProducer.values()) count += known instanceof Ranges ? known.count : 1;
    return count;
  }

  *runs(): Generator<SequenceRange & { readonly producer: string }> {
    for (const [producer, ranges] of this) {
      for (const { first, last } of ranges) yield { producer, first, last };
    }
  }

  get size(): number {
    return this.#byProducer.size;
  }

  has(producer: string): boolean {
    return this.#byProducer.has(producer);
  }

  get(producer: string): HeldRanges | undefined {
    const known = this.#byProducer.get(producer);
    return known === undefined ? undefined : listOf(known);
  }

  keys(): MapIterator<string> {
    return this.#byProducer.keys();
  }

  *values(): Generator<HeldRanges, undefined> {
    for (const known of this.#byProducer.values()) yield listOf(known);
  }

  *entries(): Generator<[string, HeldRanges], undefined> {
    for (const [producer, known] of this.#byProducer) yield [producer, listOf(known)];
  }

  [Symbol.iterator](): Generator<[string, HeldRanges], undefined> {
    return this.entries();
  }

  forEach(visit: (ranges: HeldRanges, producer: string, all: ReadonlyMap<string, HeldRanges>) => void): void {
    for (const [producer, ranges] of this) visit(ranges, producer, this);
  }
}

function rangesOf(sequence: number | undefined): Ranges {
  const ranges = new Ranges();
  if (sequence !== undefined) ranges.add(sequence, sequence);
  return ranges;
}

function listOf(known: number | Ranges): HeldRanges {
  return known instanceof Ranges ? [...known] : [{ first: known, last: known }];
}

function overlap(known: number | Ranges | undefined, first: number, last: number): boolean {
  if (known === undefined) return false;
  return known instanceof Ranges ? known.overlaps(first, last) : first <= known && known <= last;
}
