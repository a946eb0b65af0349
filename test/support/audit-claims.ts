import { type AuditIngestAck, AuditDurability as Durability } from "../../src/gen/holdfast/v1/audit_pb.js";

/** Sequences, one bit each, so that a producer of millions fits into a message. */
export interface SequenceSet {
  readonly size: number;
  /** False when it was in the set already. */
  add(sequence: number): boolean;
  has(sequence: number): boolean;
  /** For a message to another process. */
  readonly bits: Uint8Array;
}

export function createSequenceSet(from: Uint8Array = new Uint8Array(1024)): SequenceSet {
  let bits = from;
  let size = 0;
  for (const byte of bits) for (let rest = byte; rest > 0; rest &= rest - 1) size++;
  const has = (sequence: number) => ((bits[sequence >>> 3] ?? 0) & (1 << (sequence & 7))) !== 0;
  return {
    get size() {
      return size;
    },
    get bits() {
      return bits;
    },
    has,
    add(sequence) {
      if (has(sequence)) return false;
      const at = sequence >>> 3;
      if (at >= bits.length) {
        const larger = new Uint8Array(Math.max(2 * bits.length, at + 1));
        larger.set(bits);
        bits = larger;
      }
      bits[at] = (bits[at] ?? 0) | (1 << (sequence & 7));
      size++;
      return true;
    },
  };
}

/** How many sequences of a set are in none of the others. */
export function countMissing(set: Uint8Array, others: readonly Uint8Array[]): number {
  let missing = 0;
  for (const [at, byte] of set.entries()) {
    for (let rest = others.reduce((bits, other) => bits & ~(other[at] ?? 0), byte); rest > 0; rest &= rest - 1)
      missing++;
  }
  return missing;
}

/** What a producer says of its records: those it sent at least once, and those that were acknowledged to it. */
export interface ProducerClaims {
  readonly producer: string;
  readonly sent: Uint8Array;
  readonly acked: Uint8Array;
  /** What was wrong with its acks. */
  readonly problems: readonly string[];
}

/** What a caller says of an Append that left the naming to the server; content as in audit-entries.ts. */
export interface RequestClaim {
  readonly requestId: string;
  readonly records: number;
  /** The ids in its ack; undefined: it was never acknowledged. */
  readonly ids: readonly string[] | undefined;
}

/** What a reviewer says of a record that it approved, once. */
export interface ReviewClaim {
  /** The record's. */
  readonly id: string;
  /** False: it never heard what became of it. */
  readonly decided: boolean;
}

export interface Claims {
  readonly producers: readonly ProducerClaims[];
  readonly requests: readonly RequestClaim[];
  readonly reviews: readonly ReviewClaim[];
  /** What callers found wrong with their replies. */
  readonly problems: readonly string[];
}

export interface Settlement {
  /** Sequences that are kept from now on. */
  readonly kept: readonly number[];
  /** Sequences that were refused for now, to be sent again. */
  readonly again: readonly number[];
  readonly problems: readonly string[];
}

/** The account of one ingest stream: each batch sent is to be acknowledged once, in order, and completely. */
export interface AckLedger {
  sent(batch: number, sequences: readonly number[]): void;
  acked(ack: AuditIngestAck): Settlement;
  readonly unackedRecords: number;
}

export function createAckLedger(minDurability: Durability): AckLedger {
  const waiting = new Map<number, readonly number[]>();
  let acknowledged = 0;
  let unackedRecords = 0;
  return {
    get unackedRecords() {
      return unackedRecords;
    },
    sent(batch, sequences) {
      waiting.set(batch, sequences);
      unackedRecords += sequences.length;
    },
    acked(ack) {
      const batch = Number(ack.batch);
      const problems: string[] = [];
      const sequences = waiting.get(batch);
      if (batch !== acknowledged + 1) problems.push(`the ack of batch ${batch} came after that of ${acknowledged}`);
      if (sequences === undefined) {
        return {
          kept: [],
          again: [],
          problems: [...problems, `batch ${batch}, which does not wait for one, was acked`],
        };
      }
      acknowledged = batch;
      waiting.delete(batch);
      unackedRecords -= sequences.length;
      const refused = new Set<number>();
      const again: number[] = [];
      for (const { index, sequence, error } of ack.refusals) {
        refused.add(index);
        if (sequences[index] !== Number(sequence)) problems.push(`the refusal of ${sequence} names place ${index}`);
        else if (error?.code === "UNAVAILABLE") again.push(Number(sequence));
        else problems.push(`${sequence} was refused: ${error?.code} ${error?.reason} ${error?.message}`);
      }
      const answered = ack.appended + ack.duplicates + refused.size;
      if (answered !== sequences.length) problems.push(`of ${sequences.length} records ${answered} were answered for`);
      const kept = sequences.filter((_, index) => !refused.has(index));
      if (kept.length > 0 && ack.durability < Math.max(minDurability, Durability.JOURNALED)) {
        problems.push(`batch ${batch} was acked as ${Durability[ack.durability]}`);
      }
      return { kept, again, problems };
    },
  };
}
