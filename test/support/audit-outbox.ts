import { toBinary } from "@bufbuild/protobuf";
import { AuditAppendSchema } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createSequenceSet, type SequenceSet } from "./audit-claims.ts";
import type { AppendInit } from "./audit-client.ts";
import { entryOf } from "./audit-entries.ts";
import { createRandom } from "./load-child.ts";

/** Records that go together until they are acknowledged. */
export interface Batch {
  readonly sequences: readonly number[];
  readonly records: readonly AppendInit[];
  readonly bytes: number;
  readonly firstSentAt: number;
}

/** What a stream has room for. */
export interface Room {
  readonly records: number;
  readonly bytes: number;
  /** Nothing is unacknowledged: a batch goes out even if it is larger than the window. */
  readonly idle: boolean;
}

/** A producer's memory: what it sent, what was acknowledged, and what is still to be sent. */
export interface Outbox {
  readonly sent: SequenceSet;
  readonly acked: SequenceSet;
  readonly isEmpty: boolean;
  /** The next batch to send, if there is room: one that waits, else one of new records, as many as the pace allows. */
  next(room: Room, makeNew: boolean): Batch | undefined;
  /** These go out next, before all others. */
  putBack(batches: readonly Batch[]): void;
  /** These go out once more, after the others. */
  repeat(sequences: readonly number[]): void;
  /** Some of what was acknowledged lately. */
  remembered(): readonly number[];
}

export interface OutboxOptions {
  readonly producer: string;
  readonly recordsPerSecond: number;
  readonly seed: number;
}

const LARGEST_BATCH = 100;
const LARGEST_RECORD_BYTES = 1024;

export function createOutbox({ producer, recordsPerSecond, seed }: OutboxOptions): Outbox {
  const random = createRandom(seed);
  const sent = createSequenceSet();
  const acked = createSequenceSet();
  const waiting: Batch[] = [];
  let lastSequence = 0;
  /** How large the next new batch is to be. */
  let wanted = 1 + random(LARGEST_BATCH);
  let allowance = 0;
  let allowedAt = performance.now();

  /** How many new records the pace allows now. What was not sent while no server took it is not made up for at once. */
  function allowed(): number {
    const now = performance.now();
    allowance = Math.min(allowance + ((now - allowedAt) / 1000) * recordsPerSecond, 10 * LARGEST_BATCH);
    allowedAt = now;
    return Math.floor(allowance);
  }

  function fresh(count: number): Batch {
    allowance -= count;
    const sequences: number[] = [];
    while (sequences.length < count) {
      // Gaps are allowed.
      lastSequence += random(50) === 0 ? 1 + random(5) : 1;
      sequences.push(lastSequence);
    }
    return batchOf(sequences);
  }

  function batchOf(sequences: readonly number[]): Batch {
    const records = sequences.map((sequence) => ({ sequence: BigInt(sequence), entry: entryOf(producer, sequence) }));
    const encoded = records.map(({ sequence, entry }) =>
      toBinary(AuditAppendSchema, { $typeName: AuditAppendSchema.typeName, sequence, entry }),
    );
    const bytes = encoded.reduce((sum, { length }) => sum + length, 0);
    return { sequences, records, bytes, firstSentAt: performance.now() };
  }

  function take(room: Room, makeNew: boolean): Batch | undefined {
    const [first] = waiting;
    if (first !== undefined) {
      const fits = first.sequences.length <= room.records && first.bytes <= room.bytes;
      return fits || room.idle ? waiting.shift() : undefined;
    }
    if (!makeNew) return undefined;
    const fitting = Math.min(room.records, Math.floor(room.bytes / LARGEST_RECORD_BYTES));
    const count = Math.min(wanted, fitting);
    if (count <= 0 || allowed() < count) return undefined;
    wanted = 1 + random(LARGEST_BATCH);
    return fresh(count);
  }

  return {
    sent,
    acked,
    get isEmpty() {
      return waiting.length === 0;
    },
    next(room, makeNew) {
      const batch = take(room, makeNew);
      for (const sequence of batch?.sequences ?? []) sent.add(sequence);
      return batch;
    },
    putBack: (batches) => void waiting.unshift(...batches),
    repeat(sequences) {
      if (sequences.length > 0) waiting.push(batchOf(sequences));
    },
    remembered: () => [28, 21, 14, 7, 0].map((back) => lastSequence - back).filter((one) => one > 0 && acked.has(one)),
  };
}
