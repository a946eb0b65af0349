/** What a layer keeps for a key: a value, or the mark that one was deleted (a tombstone). */
export interface CacheRecord {
  /** Grows with every change of the key, also across deletion. */
  readonly version: number;
  readonly deleted: boolean;
  readonly value: CacheValue;
  /** When it was stored, in milliseconds since 1970. */
  readonly createdAt: number;
  /** Logical end: not served as fresh from here on. Undefined: never. */
  readonly expiresAt: number | undefined;
  /** Physical end: kept until here to be served stale. Undefined: never. */
  readonly staleUntil: number | undefined;
  readonly tags: readonly string[];
  /**
   * The stamps of the namespace (first) and of each tag when it was stored. An invalidation gives the namespace or tag a new
   * stamp, so a record is valid exactly while all of its stamps are the current ones: no clock is compared.
   */
  readonly stamps: readonly number[];
}

/** Text is kept as text, so that it stays readable in every layer. */
export interface CacheValue {
  readonly data: Uint8Array | string;
  readonly contentType: string;
}

/** A record before the layer that stores it has given it stamps. */
export type Draft = Omit<CacheRecord, "stamps">;

export const NO_VALUE: CacheValue = { data: "", contentType: "" };

/** How long a tombstone refuses late writes: far longer than any write can be under way. */
export const TOMBSTONE_MS = 60_000;

export function tombstone(version: number, now: number): Draft {
  return {
    version,
    deleted: true,
    value: NO_VALUE,
    createdAt: now,
    expiresAt: now,
    staleUntil: now + TOMBSTONE_MS,
    tags: [],
  };
}

export function isFresh(record: CacheRecord, now: number): boolean {
  return !record.deleted && (record.expiresAt === undefined || record.expiresAt > now);
}

/** Whether a record that has expired may still be served when nothing better is to be had. */
export function isServable(record: CacheRecord, now: number): boolean {
  return !record.deleted && (record.staleUntil === undefined || record.staleUntil > now);
}

export function valueBytes(value: CacheValue): Uint8Array {
  return typeof value.data === "string" ? Buffer.from(value.data, "utf8") : value.data;
}
