import type { LockAuthority } from "../../gen/holdfast/v1/lock_pb.js";
import type { NamedRequest } from "../../infra/named-request.ts";
import type { LossCause, ReleaseOrder, RenewOrder, TakeOrder } from "../record/decide.ts";
import type { Grant } from "../record/grant.ts";

/** A grant with what its authority's clock says of it. */
export interface Lease {
  readonly grant: Grant;
  /** How much of the lease was left when the authority decided. */
  readonly remainingMs: number;
}

export type Taken =
  | { readonly kind: "granted"; readonly lease: Lease }
  | { readonly kind: "held"; readonly holder: Lease }
  /** Free, but it is another instance's turn: ask again after this long, or when woken. */
  | { readonly kind: "yield"; readonly afterMs: number };

export type Renewed =
  | { readonly kind: "renewed"; readonly lease: Lease }
  /** `holder` is who has the lock now. */
  | { readonly kind: "over"; readonly cause: LossCause; readonly holder: Lease | undefined };

export interface Released {
  /** Whether this call ended the lease. */
  readonly released: boolean;
  /** The lock as its holder had it; when not released, as another grant holds it now. Of a brief order it may be left out. */
  readonly lease: Lease | undefined;
  /** No stream kept it: for where `lease` is left out. */
  readonly unkept?: true;
}

export interface Looked {
  readonly lease: Lease | undefined;
  /**
   * The largest token known to be granted; 0: none. Where another authority may have granted larger ones, it is what lies below
   * all that this one grants, and is no token.
   */
  readonly lastToken: number;
}

export interface ListQuery {
  readonly prefix: string;
  readonly owner: string | undefined;
  readonly mayUse: (namespace: string) => boolean;
  readonly limit: number;
  /** Where the page before ended; undefined at the beginning. Only this kind of authority understands it. */
  readonly after: string | undefined;
}

export interface Listed {
  readonly leases: readonly Lease[];
  readonly after: string | undefined;
}

/** One of several that decide by a majority. */
export interface Voter {
  /** Its place among them, from 1, as they were configured. */
  readonly place: number;
  /** Why its vote was missing when it was last asked. */
  readonly missing: string | undefined;
}

export interface Voters {
  readonly lastSeen: readonly Voter[];
  /** Asks all of them. */
  ask(): Promise<readonly Voter[]>;
}

/**
 * Who decides about locks. Each operation is atomic and follows the rules of record/decide.ts with the authority's own clock.
 * Whoever cannot decide safely rejects with an UnavailableError (LOCK_AUTHORITY_UNAVAILABLE, LOCK_AUTHORITY_CHANGING) and
 * never guesses. A release that somebody may be waiting for is announced to the other instances on LOCK_TOPIC.
 */
export interface Authority {
  /** Which one it is now; failing over changes it. */
  readonly kind: LockAuthority;
  /** Left out where one decides alone. */
  readonly voters?: Voters;
  /** Rejects with LOCK_ATTEMPT_OVER and REQUEST_ID_REUSED too. */
  take(order: TakeOrder): Promise<Taken>;
  renew(order: RenewOrder): Promise<Renewed>;
  release(order: ReleaseOrder): Promise<Released>;
  look(name: string): Promise<Looked>;
  list(query: ListQuery): Promise<Listed>;
  /**
   * Keeps a text under a request's id for as long as attempts are remembered, and returns the one that was kept first. For
   * operations that are more than one step, so that a retry goes on with what the first attempt found.
   */
  remember(name: string, request: NamedRequest, text: string): Promise<string>;
  close(): Promise<void>;
}

/** On which instances tell each other the names of locks that became free. */
export const LOCK_TOPIC = "lock";

/** So long is known that an attempt took a lock. */
export const ATTEMPT_KEPT_MS = 600_000;
/** So long is known what became of a lock's newest grant after it is over. Its next token is larger for ever. */
export const RECORD_KEPT_MS = 24 * 3_600_000;
