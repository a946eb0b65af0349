import { type FailureDetails, UnavailableError } from "../../infra/failure.ts";
import type { RecordId, Sealed } from "../record/record.ts";

/** Sequences of one producer, as ranges that rise and do not touch. */
export type HeldRanges = readonly { readonly first: number; readonly last: number }[];

/** A file of the journal, as far as it matters to those who empty it. */
export interface Segment {
  readonly name: string;
  /** When it was begun, in milliseconds since 1970. */
  readonly createdMs: number;
  readonly records: number;
  readonly bytes: number;
  /** Whether nothing is appended to it any more. */
  readonly sealed: boolean;
  /** What it holds, by producer. */
  readonly held: ReadonlyMap<string, HeldRanges>;
}

export interface JournalCondition {
  readonly segments: number;
  readonly records: number;
  readonly bytes: number;
  /** Damaged records that are set aside in the quarantine, those of earlier runs included. */
  readonly quarantined: number;
  /** Why the last append failed; undefined when it did not. */
  readonly lastError: { readonly message: string; readonly time: number } | undefined;
}

/** The seatbelt: records on this instance's disk, fsynced, until they are archived. */
export interface Journal {
  /**
   * Resolves when the records are on the disk. Rejects with JournalUnavailableError when they cannot be; then some of them may
   * be replayed all the same: as what they are, unless their producer uses an identity twice. The records are copied before it returns.
   */
  append(records: readonly Sealed[]): Promise<void>;
  /** The segments that are not released, the oldest first. */
  segments(): readonly Segment[];
  /**
   * Seals the segment that is written to, if it holds anything, so that it can be released. Resolves when all that was appended
   * before is on the disk or refused.
   */
  rotate(): Promise<void>;
  /** The records of a segment, in order, some hundred at a time. Damaged ones are quarantined on the way, and passed over. */
  read(segment: Segment): AsyncIterable<readonly Sealed[]>;
  /** Deletes a sealed segment: all of it is archived. Rejects while damage that it holds cannot be set aside. */
  release(segment: Segment): Promise<void>;
  /** The leaf of a record that is held here. */
  find(id: RecordId): Promise<Uint8Array | undefined>;
  /** Whether a record of this identity was damaged and set aside. */
  isQuarantined(id: RecordId): boolean;
  /** The sequences of a producer of which `isQuarantined` is true. */
  quarantined(producer: string): HeldRanges;
  condition(): JournalCondition;
  /** Waits until what was appended is on the disk, and closes. */
  close(): Promise<void>;
}

/**
 * Nothing can be appended now: "JOURNAL_FULL" when the journal has reached its size and waits for records to be archived,
 * "JOURNAL_UNAVAILABLE" when the disk does not take it.
 */
export class JournalUnavailableError extends UnavailableError {
  constructor(reason: "JOURNAL_FULL" | "JOURNAL_UNAVAILABLE", message: string, details: FailureDetails = {}) {
    super(reason, message, details);
  }
}
