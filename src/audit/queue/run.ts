import type { RecordId, Sealed } from "../record/record.ts";

/**
 * Records of one producer whose sequences follow each other: what is one entry of the stream. Redis' work, and ours with it, goes
 * by entries, so that a batch costs little more than a record.
 */
export interface Run {
  readonly producer: string;
  readonly first: number;
  readonly last: number;
  /** The leaves, each after its length in four bytes, the highest first. */
  readonly leaves: Buffer;
}

/** The names of an entry's fields, in their order. */
export const RUN_FIELDS = ["producer", "first", "last", "leaves"] as const;

/** What a run may come to before the next one begins. A record may be larger: then it is a run by itself. */
const MOST_BYTES = 64 * 1024;
const LENGTH_BYTES = 4;

/** The records as runs, in their order. No identity may come twice. */
export function runsOf(records: readonly Sealed[]): readonly Run[] {
  const runs: Run[] = [];
  let from = 0;
  let bytes = 0;
  for (const [at, record] of records.entries()) {
    const before = records[at - 1];
    const size = LENGTH_BYTES + record.leaf.length;
    const follows = before?.producer === record.producer && before.sequence + 1 === record.sequence;
    if (at > 0 && !(follows && bytes + size <= MOST_BYTES)) {
      runs.push(runOf(records, from, at, bytes));
      from = at;
      bytes = 0;
    }
    bytes += size;
  }
  if (records.length > 0) runs.push(runOf(records, from, records.length, bytes));
  return runs;
}

function runOf(records: readonly Sealed[], from: number, to: number, bytes: number): Run {
  const [first, last] = [records[from], records[to - 1]];
  if (first === undefined || last === undefined) throw new RangeError("a run has at least one record");
  const leaves = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (let i = from; i < to; i++) {
    const leaf = records[i]?.leaf;
    if (leaf === undefined) break;
    at = leaves.writeUInt32BE(leaf.length, at);
    leaves.set(leaf, at);
    at += leaf.length;
  }
  return { producer: first.producer, first: first.sequence, last: last.sequence, leaves };
}

/** Its leaves, not copied, with the identity each has to have. Throws when the bytes are not as many leaves as it says. */
export function leavesOf({ producer, first, last, leaves }: Run): readonly { id: RecordId; leaf: Uint8Array }[] {
  const found: { id: RecordId; leaf: Uint8Array }[] = [];
  let at = 0;
  for (let sequence = first; sequence <= last; sequence++) {
    const start = at + LENGTH_BYTES;
    const end = start <= leaves.length ? start + leaves.readUInt32BE(at) : Number.POSITIVE_INFINITY;
    if (end > leaves.length) throw notARun();
    found.push({ id: { producer, sequence }, leaf: leaves.subarray(start, end) });
    at = end;
  }
  if (at !== leaves.length || found.length === 0) throw notARun();
  return found;
}

/** How many leaves these bytes can be, whatever they are. */
export function mostLeavesIn(leaves: Buffer): number {
  return Math.floor(leaves.length / LENGTH_BYTES);
}

function notARun(): Error {
  return new Error("these bytes are not the audit records that the entry says they are");
}
