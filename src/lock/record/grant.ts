/** A lease on a lock, as its authority keeps it. Times are milliseconds of the authority's clock. */
export interface Grant {
  readonly name: string;
  /** The fencing token: larger than that of every earlier grant of the same lock. */
  readonly token: number;
  readonly owner: string;
  readonly purpose: string;
  readonly caller: string;
  /** The instance that granted it, or that holds it by a stream. */
  readonly instanceId: string;
  /**
   * Names the Hold stream that keeps it. Empty: it was acquired without one; RETRIED: so it was, and a retry was given it
   * too.
   */
  readonly streamId: string;
  readonly requestId: string;
  /** What was asked under that request id; see named-request.ts. */
  readonly requestMeaning: string;
  /** How long a renewal without a ttl makes it last. */
  readonly ttlMs: number;
  readonly acquireMs: number;
  readonly expireMs: number;
  readonly renewals: number;
  /** How it was ended before its time, if it was. */
  readonly end: GrantEnd;
  readonly endMs: number;
}

/** No stream has this name. */
export const RETRIED = "retried";

export function isKeptByStream({ streamId }: Grant): boolean {
  return streamId !== "" && streamId !== RETRIED;
}

export type GrantEnd = "" | "released" | "forced";

/** What an authority knows of a lock: its newest grant, which may be over, and who else wants it. */
export interface LockRecord {
  readonly grant: Grant;
  /** How often in a row the same instance has had it. */
  readonly streak: number;
  /** Until when somebody is taken to wait for it, so that its release has to be announced. */
  readonly wantedUntilMs: number;
  /** An instance that waited while another had the lock, and until when it is taken to. Empty: none. */
  readonly rival: string;
  readonly rivalUntilMs: number;
}

export function isLive({ end, expireMs }: Grant, nowMs: number): boolean {
  return end === "" && expireMs > nowMs;
}

/** When the lock became free; in the future while it is held. */
export function freeSince({ end, endMs, expireMs }: Grant): number {
  return end === "" ? expireMs : endMs;
}
