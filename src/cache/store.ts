import type { ServedBy } from "../infra/call.ts";
import { Failure, UnavailableError } from "../infra/failure.ts";
import type { Fence } from "../infra/fencing.ts";
import type { CacheRecord, Draft } from "./record.ts";
import { isInvalidation } from "./version.ts";

/** What one layer knows of a key. */
export interface ReadResult {
  /** The newest record of the key, tombstones and expired ones included. */
  readonly record: CacheRecord | undefined;
  /** Whether the record's stamps are the current ones. */
  readonly valid: boolean;
  /** The layer that answered. */
  readonly layer: ServedBy;
  /** Answered by a fallback, because a layer above it is away. */
  readonly degraded?: boolean;
  /** The layer that knows is away: no record means "cannot tell", not "is not there". */
  readonly unknown?: boolean;
  /** When unknown: tags ("" is the namespace itself) that were invalidated since that layer went away. */
  readonly raised?: ReadonlySet<string>;
  /** A change of this key is under way: right to serve, wrong to keep. */
  readonly passing?: boolean;
  /** When unknown, and an empty answer would be a lie: what to fail with if no copy is to be had. */
  readonly error?: unknown;
}

/** What must hold for a write to be stored. Checked atomically with the write. */
export type Guard =
  /**
   * Nothing: it replaces what is there under a larger version, and voids any lease. If ordered, only what has a smaller version
   * than the draft: for a write whose caller may have been answered from elsewhere before it arrives.
   */
  | { readonly kind: "none"; readonly ordered?: boolean }
  /**
   * The key's version is the one seen (0: no record at all), or with orAbsent there is none any more; with grantedAt, nothing
   * was invalidated since. Voids any lease.
   */
  | { readonly kind: "version"; readonly seen: number; readonly orAbsent?: boolean; readonly grantedAt?: number }
  /**
   * Only over an older version, or the tombstone that kept this very version's place: a copy of what is true elsewhere; with
   * grantedAt, if nothing was invalidated since.
   */
  | { readonly kind: "newer"; readonly grantedAt?: number }
  /** The lease is still held, the key still has the version seen when it was given, and nothing was invalidated since. */
  | { readonly kind: "lease"; readonly token: string; readonly seen: number; readonly grantedAt: number };

/** Whether anything the value belongs to was invalidated after the moment its guard names. */
export function isOvertaken(guard: Guard, stamps: readonly number[]): boolean {
  const since = "grantedAt" in guard ? guard.grantedAt : undefined;
  return since !== undefined && stamps.some((stamp) => isInvalidation(stamp) && stamp > since);
}

/** A fence of which SQL said that no newer token was seen. */
export interface AskedFence extends Fence {
  /** What this process knew when its version clock was here, it knew before SQL was asked. */
  readonly askedAt: number;
}

export interface Write {
  readonly key: string;
  readonly draft: Draft;
  readonly guard: Guard;
  /** Given for copies; otherwise the layer stamps the record with its current stamps. */
  readonly stamps?: readonly number[];
  /** What to answer to a retry with the same id, remembered in the same atomic step. */
  readonly request?: { readonly id: string; readonly answer: string; readonly expiresAt: number };
  /** Remember, in the same step, that the layer above has not heard of it (only a Refuge can). */
  readonly unhealed?: boolean;
  /** The lock it is made under: with a newer token of it before, nothing is written. The same for all writes of one call. */
  readonly fence?: AskedFence | undefined;
  /** How other instances hear of it: `set` and `deleted` reach watchers, `drop` only makes them forget their copies. */
  readonly announce: "set" | "deleted" | "drop" | "no";
}

export type WriteResult =
  | {
      readonly stored: true;
      readonly version: number;
      /** The stamps the record was given. */
      readonly stamps: readonly number[];
      readonly degraded?: boolean;
      readonly layer: ServedBy;
    }
  | {
      readonly stored: false;
      /**
       * "forgotten": the layer may have forgotten a newer token since SQL was asked. To be asked again, and tried again. Only of
       * layers that are not the truth of their fences.
       */
      readonly why: "version" | "lease" | "overtaken" | "forgotten";
      /** When the version refused it, and it is known: the one there is. */
      readonly version?: number;
      /** When overtaken: the largest stamp seen, so that the next attempt can be later than it. */
      readonly stamp?: number;
      readonly degraded?: boolean;
      readonly layer: ServedBy;
    }
  | {
      readonly stored: false;
      /** A write under a newer token of its lock came before it. */
      readonly why: "fenced";
      readonly newest: number;
      readonly degraded?: boolean;
      readonly layer: ServedBy;
    };

/** For what only stands in for a layer: it cannot hold a write to tokens that others have seen meanwhile. */
export function refuseFenced(writes: readonly Write[]): void {
  if (writes.every(({ fence }) => fence === undefined)) return;
  throw new UnavailableError(
    "REDIS_UNAVAILABLE",
    "a write under a lock is stored where its fence is kept, or not at all",
  );
}

export interface KeyInfo {
  readonly key: string;
  readonly version: number;
  readonly expiresAt: number | undefined;
}

export interface KeyPage {
  readonly keys: readonly KeyInfo[];
  /** Where the next page begins, in the layer's own words; undefined at the end. */
  readonly cursor: string | undefined;
  readonly degraded?: boolean;
}

/** A listing that one layer began cannot be gone on with on another. */
export class ListingInterruptedError extends Failure {
  constructor() {
    super(
      "conflict",
      "LISTING_INTERRUPTED",
      "the layer this listing began on has gone away or come back: begin it again",
    );
  }
}

/** The answer to a request for a lease: given, or held by another until then. */
export type LeaseGrant = { readonly granted: true } | { readonly granted: false; readonly heldUntil: number };

/**
 * A shared layer of the cache. Expiry is absolute and judged by the caller's clock; a layer may forget a record once its
 * `staleUntil` has passed. Each method is atomic per key, and throws a Failure when the layer cannot be reached.
 */
export interface CacheStore {
  readonly layer: ServedBy;
  /** One result a key, in order. */
  read(namespace: string, keys: readonly string[]): Promise<ReadResult[]>;
  /** One result a write, in order; each is stored or refused on its own. */
  write(namespace: string, writes: readonly Write[]): Promise<WriteResult[]>;
  /** Gives the tags (none: the namespace) a new stamp, `stamp` or a larger one. */
  invalidate(namespace: string, tags: readonly string[], stamp: number): Promise<{ readonly degraded?: boolean }>;
  acquireLease(namespace: string, key: string, token: string, expiresAt: number): Promise<LeaseGrant>;
  /** Gives a lease back that is not needed after all. One that is not held any more is none to give back. */
  releaseLease(namespace: string, key: string, token: string): Promise<void>;
  /** The answer remembered for a request id. */
  recall(namespace: string, key: string, requestId: string): Promise<string | undefined>;
  /** Fresh, valid keys that begin with the prefix; at most `limit`. A cursor that is not one of its own is refused. */
  list(namespace: string, prefix: string, limit: number, cursor: string | undefined): Promise<KeyPage>;
}

/** A layer of hot copies of what is true elsewhere. */
export interface HotStore extends CacheStore {
  /** Brings marks up to the stamps that the truth gave them, and tells other instances. Marks never go back. */
  raise(namespace: string, marks: readonly Pick<UnhealedMark, "tag" | "stamp">[]): Promise<void>;
}

/** A change that the layer above has not heard of yet. */
export interface Unhealed {
  readonly namespace: string;
  readonly key: string;
  readonly version: number;
}

export interface UnhealedMark {
  readonly namespace: string;
  /** "" is the namespace itself. */
  readonly tag: string;
  readonly stamp: number;
}

/** A layer that remembers what changed while the layer above it was away, through restarts. */
export interface Refuge extends CacheStore {
  /** Like read, but sees only unhealed records: what else it holds of a namespace it is not the truth of is out of date. */
  readKept(namespace: string, keys: readonly string[]): Promise<ReadResult[]>;
  /** Like write over what readKept sees, and remembers the keys as unhealed. No fenced write: who reads it later knows no fence. */
  keep(namespace: string, writes: readonly Write[]): Promise<WriteResult[]>;
  /** Like invalidate, and remembers the marks as unhealed. Returns them as they stand now. */
  keepInvalidation(namespace: string, tags: readonly string[], stamp: number): Promise<readonly UnhealedMark[]>;
  unhealed(limit: number): Promise<Unhealed[]>;
  unhealedMarks(limit: number): Promise<UnhealedMark[]>;
  unhealedCount(): Promise<number>;
  /** The largest version or stamp that is unhealed. */
  latestUnhealed(): Promise<number>;
  /** Tags of the namespace ("" is itself) with an unhealed invalidation. Throws rather than leave one out. */
  raisedTags(namespace: string): Promise<ReadonlySet<string>>;
  /** Forgets that they are unhealed, unless they changed again. `forget` drops the rows: the layer above has them now. */
  settle(entries: readonly Unhealed[], forget: boolean): Promise<void>;
  /** The marks themselves stay: records that are still unhealed carry their stamps. */
  settleMarks(marks: readonly UnhealedMark[]): Promise<void>;
  /**
   * Removes records whose physical end has passed, old request memories and ended leases, up to `limit` of each. Returns
   * whether there may be more.
   */
  sweep(now: number, limit: number): Promise<boolean>;
}

/** A refuge in this process's memory: for when there is no other. It knows what it holds without asking anyone. */
export interface MemoryRefuge extends Refuge {
  /** Whether it has a change of this key that is not healed. */
  keeps(namespace: string, key: string): boolean;
  /** Whether anything here is not healed. */
  readonly any: boolean;
  /** Whether the namespace or one of the tags was invalidated here after the version. */
  isInvalidated(namespace: string, tags: readonly string[], version: number): boolean;
  /** Unhealed changes that had to go because there was no room. */
  readonly lost: number;
}
