import { NAME } from "./name.ts";
import type { EntryTexts } from "./texts.ts";

/**
 * A record as it is kept everywhere: sealed by the first server that accepted it, and never changed. The fields beside the leaf
 * are read from it, for those who sort and search.
 */
export interface Sealed {
  readonly producer: string;
  /** 1 to 2^53 - 1. */
  readonly sequence: number;
  /** Microseconds since 1970, as all times here. */
  readonly acceptUs: number;
  /** When it happened; when it was accepted, if the caller did not say. */
  readonly occurUs: number;
  readonly texts: EntryTexts;
  /** An AuditOutcome; 0: not stated. */
  readonly outcome: number;
  /** Whether a review is wanted. */
  readonly pending: boolean;
  /** The serialized AuditLeaf: what is hashed, journaled, queued and archived, byte by byte. */
  readonly leaf: Uint8Array;
}

export interface RecordId {
  readonly producer: string;
  readonly sequence: number;
}

/** Producers that the server names begin with this. */
export const SERVER_PRODUCER = "@";
/** The producer of reviews. */
export const REVIEW_PRODUCER = "@review";
/** Producers made of a request_id begin with this: each has a few records, once, and no high-water mark is kept of them. */
export const REQUEST_PRODUCER = "@r.";

export function idOf({ producer, sequence }: RecordId): string {
  return `${producer}/${sequence}`;
}

const ID = new RegExp(`^(${SERVER_PRODUCER}?${NAME})/([1-9]\\d{0,15})$`);

/** The identity that an id names; undefined when no record can have it. */
export function parseId(id: string): RecordId | undefined {
  const found = ID.exec(id);
  if (found === null) return undefined;
  const [, producer = "", digits = ""] = found;
  const sequence = Number(digits);
  return Number.isSafeInteger(sequence) ? { producer, sequence } : undefined;
}
