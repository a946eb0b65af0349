import type { NamedRequest } from "../../infra/named-request.ts";
import { freeSince, type Grant, type GrantEnd, isLive, type LockRecord, RETRIED } from "./grant.ts";

/** The rules of a lock, pure: what every authority does, in one atomic step, with the record that it keeps. */

/** So often in a row an instance takes a lock that another one waits for too. */
export const MOST_STREAK = 16;
/** So long after the lock became free, an instance that had its share leaves it to the others. */
export const YIELD_MS = 100;
/** So long after an instance was told that the lock is held it is taken to wait. Whoever waits asks again well before. */
export const WANTED_MS = 10_000;
/** What is known for at least this much longer is not written again: on a lock that many want, most who ask change nothing. */
export const WELL_KNOWN_MS = 7_500;

export interface TakeOrder {
  readonly name: string;
  readonly ttlMs: number;
  readonly owner: string;
  readonly purpose: string;
  readonly caller: string;
  readonly instanceId: string;
  readonly streamId: string;
  readonly request: NamedRequest | undefined;
  /** Whether the caller goes on waiting when the lock is held. */
  readonly waits: boolean;
}

export type TakeDecision =
  /** `record` is the new one, or has the grant that the attempt had been given already: with the streamId that keeps it. */
  | { readonly kind: "granted"; readonly record: LockRecord }
  | { readonly kind: "held"; readonly record: LockRecord }
  | { readonly kind: "yield"; readonly afterMs: number }
  /** The attempt was granted once, and that grant is over. */
  | { readonly kind: "attempt_over" }
  /** Its request id names another request. */
  | { readonly kind: "request_reused" };

export function decideTake(
  record: LockRecord | undefined,
  order: TakeOrder,
  /** Whether the request id was granted before, within the time that attempts are remembered. */
  wasGranted: boolean,
  nowMs: number,
  token: number,
): TakeDecision {
  const { request } = order;
  if (record !== undefined && isLive(record.grant, nowMs)) {
    const { grant } = record;
    if (request !== undefined && grant.requestId === request.id) {
      if (grant.requestMeaning !== request.meaning) return { kind: "request_reused" };
      return { kind: "granted", record: grantedAgain(record) };
    }
    if (wasGranted) return { kind: "attempt_over" };
    return { kind: "held", record: order.waits ? wanted(record, order.instanceId, nowMs) : record };
  }
  if (wasGranted) return { kind: "attempt_over" };
  const afterMs = record === undefined ? 0 : yieldMs(record, order.instanceId, nowMs);
  if (afterMs > 0) return { kind: "yield", afterMs };
  return { kind: "granted", record: granted(record, order, nowMs, token) };
}

/** Two callers may have it now: from here on, neither of them can give it back for want of a caller. */
function grantedAgain(record: LockRecord): LockRecord {
  const { grant } = record;
  return grant.streamId === "" ? { ...record, grant: { ...grant, streamId: RETRIED } } : record;
}

function granted(before: LockRecord | undefined, order: TakeOrder, nowMs: number, token: number): LockRecord {
  const { name, ttlMs, owner, purpose, caller, instanceId, streamId, request } = order;
  const isAgain = before?.grant.instanceId === instanceId;
  // Who did not come while the lock was left to it has gone, or will ask again.
  const isRival = before === undefined || before.rival === instanceId || hadItsShare(before, instanceId);
  return {
    grant: {
      ...{ name, token, owner, purpose, caller, instanceId, streamId, ttlMs },
      requestId: request?.id ?? "",
      requestMeaning: request?.meaning ?? "",
      ...{ acquireMs: nowMs, expireMs: nowMs + ttlMs, renewals: 0, end: "", endMs: 0 },
    },
    streak: isAgain ? before.streak + 1 : 1,
    wantedUntilMs: before?.wantedUntilMs ?? 0,
    rival: isRival ? "" : before.rival,
    rivalUntilMs: isRival ? 0 : before.rivalUntilMs,
  };
}

function wanted(record: LockRecord, instanceId: string, nowMs: number): LockRecord {
  const untilMs = nowMs + WANTED_MS;
  const knownMs = nowMs + WELL_KNOWN_MS;
  const { wantedUntilMs, rival, rivalUntilMs } = record;
  const holder = record.grant.instanceId;
  // The first of several keeps its place until it had the lock, if it goes on saying that it waits.
  const isRival = instanceId !== holder && (rival === "" || rival === holder || rivalUntilMs < knownMs);
  if (wantedUntilMs >= knownMs && !isRival) return record;
  return {
    ...record,
    wantedUntilMs: Math.max(wantedUntilMs, untilMs),
    ...(isRival && { rival: instanceId, rivalUntilMs: untilMs }),
  };
}

/** For how long this instance has to leave the free lock to others. */
function yieldMs(record: LockRecord, instanceId: string, nowMs: number): number {
  const { grant, rival, rivalUntilMs } = record;
  const isWaitedFor = rival !== "" && rival !== instanceId && rivalUntilMs > nowMs;
  return isWaitedFor && hadItsShare(record, instanceId) ? freeSince(grant) + YIELD_MS - nowMs : 0;
}

function hadItsShare({ grant, streak }: LockRecord, instanceId: string): boolean {
  return grant.instanceId === instanceId && streak >= MOST_STREAK;
}

export interface RenewOrder {
  readonly name: string;
  readonly token: number;
  /** Undefined: what the lock was taken with. */
  readonly ttlMs: number | undefined;
  /** The Hold stream that renews its own grant. Undefined: a call, which renews whatever keeps it. */
  readonly streamId: string | undefined;
  /** A stream, and its instance, that goes on with the grant from here, whatever kept it before. */
  readonly heir: { readonly streamId: string; readonly instanceId: string } | undefined;
}

export type LossCause = "expired" | "released" | "forced" | "taken_over";

export type RenewDecision =
  | { readonly kind: "renewed"; readonly record: LockRecord }
  | { readonly kind: "over"; readonly cause: LossCause };

export function decideRenew(record: LockRecord | undefined, order: RenewOrder, nowMs: number): RenewDecision {
  if (record === undefined || record.grant.token !== order.token) return { kind: "over", cause: "expired" };
  const { grant } = record;
  if (grant.end !== "") return { kind: "over", cause: grant.end };
  if (grant.expireMs <= nowMs) return { kind: "over", cause: "expired" };
  const { heir, streamId } = order;
  if (heir === undefined && streamId !== undefined && streamId !== grant.streamId) {
    return { kind: "over", cause: "taken_over" };
  }
  const renewed: Grant = {
    ...grant,
    ...heir,
    expireMs: Math.max(grant.expireMs, nowMs + (order.ttlMs ?? grant.ttlMs)),
    renewals: grant.renewals + 1,
  };
  return { kind: "renewed", record: { ...record, grant: renewed } };
}

export interface ReleaseOrder {
  readonly name: string;
  readonly token: number;
  readonly end: Exclude<GrantEnd, "">;
  /**
   * Only if this still keeps the grant: a Hold stream, or (empty) an Acquire that nobody has retried. Undefined: whatever
   * keeps it.
   */
  readonly streamId: string | undefined;
  /** The grant never reached its caller: its attempt is forgotten too, so that a retry tries anew. Needs the streamId. */
  readonly undo: boolean;
  /** Nobody asks whose lease it was, unless a stream kept it. */
  readonly brief?: true;
}

/** The record after the lease was ended; undefined when this grant held nothing any more. */
export function decideRelease(
  record: LockRecord | undefined,
  order: ReleaseOrder,
  nowMs: number,
): LockRecord | undefined {
  if (record === undefined) return undefined;
  const { grant } = record;
  if (grant.token !== order.token || !isLive(grant, nowMs)) return undefined;
  if (order.streamId !== undefined && order.streamId !== grant.streamId) return undefined;
  if (order.undo && grant.streamId === RETRIED) return undefined;
  return { ...record, grant: { ...grant, end: order.end, endMs: nowMs } };
}

/** Whether somebody may be waiting, and has to be told that the lock is free. */
export function isWanted({ wantedUntilMs }: LockRecord, nowMs: number): boolean {
  return wantedUntilMs > nowMs;
}
