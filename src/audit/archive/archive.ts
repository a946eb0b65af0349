import type { SqlSession } from "../../infra/database.ts";
import type { SearchKeys } from "../record/keys.ts";
import type { RecordId, Sealed } from "../record/record.ts";

/**
 * What became of a record that was to be archived. "duplicate": it was held already with the same content; "differs": with
 * another, which stays as it is.
 */
export interface Placed {
  readonly outcome: "appended" | "duplicate" | "differs";
  /** Of the record that is held under this identity now. */
  readonly leafIndex: number;
}

/** A record of the archive. */
export interface Archived extends RecordId {
  readonly leafIndex: number;
  readonly occurUs: number;
  /** An AuditStatus, as it is now. */
  readonly status: number;
  /** The last decision: a serialized AuditReview. */
  readonly review: Uint8Array | null;
  /** The serialized AuditLeaf. Null when retention has dropped it. */
  readonly leaf: Uint8Array | null;
}

export interface SequenceRange {
  readonly first: number;
  readonly last: number;
}

/** Records that are ready to be appended. */
export type Prepared = readonly PreparedRecord[];

export interface PreparedRecord {
  readonly record: Sealed;
  readonly hash: Buffer;
  readonly keys: SearchKeys;
}

/** Appends while it holds the head of the log. */
export interface Appender {
  append(records: readonly Sealed[]): Promise<readonly Placed[]>;
  /** The sequence after the largest one held of this producer. */
  nextSequence(producer: string): Promise<number>;
}

/**
 * The archive in SQL: the truth of the audit log, in the order of its Merkle tree. Every call rejects with UnavailableError while
 * SQL is away.
 */
export interface Archive {
  readonly kind: "sqlite" | "postgres";
  /**
   * Appends what is not held yet, in this order; all or nothing, durable when it resolves. Callers at the same time share
   * commits. A record that differs from the one held is put aside where `differing` is "keep": nobody can be told any more.
   */
  append(records: readonly Sealed[], differing: "refuse" | "keep"): Promise<readonly Placed[]>;
  /** Computes now what can be computed before these are appended: for who has nothing better to do meanwhile. */
  prepare(records: readonly Sealed[]): Prepared;
  appendPrepared(prepared: Prepared, differing: "refuse" | "keep"): Promise<readonly Placed[]>;
  /** Runs `work` in one transaction that may append too. Inside, use `tx` and `log` alone. */
  transaction<T>(work: (tx: SqlSession, log: Appender) => Promise<T>): Promise<T>;
  /** Those that are held, in the order asked for; undefined where none is. */
  find(ids: readonly RecordId[]): Promise<readonly (Archived | undefined)[]>;
  /** The largest sequence held of a producer; 0: none. */
  lastSequence(producer: string): Promise<number>;
  /** How many of these sequences are held, retired ones included: for each range, in order. */
  countHeld(producer: string, ranges: readonly SequenceRange[]): Promise<readonly number[]>;
  /** How many leaves there are. */
  size(): Promise<number>;
  close(): Promise<void>;
}
