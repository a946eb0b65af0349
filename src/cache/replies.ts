import { create, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  CacheChange_Kind,
  CacheChangeSchema,
  type CacheEntry,
  CacheEntrySchema,
  CacheOutcome,
  type CacheServiceWatchResponse,
  CacheServiceWatchResponseSchema,
  GetResultSchema,
  type NamespaceStats,
  NamespaceStatsSchema,
  SetOutcome,
  ValueSchema,
  WatchDiscontinuitySchema,
  WatchHeartbeatSchema,
  WatchOpenedSchema,
} from "../gen/holdfast/v1/cache_pb.js";
import { type ItemError, ItemErrorSchema } from "../gen/holdfast/v1/item_error_pb.js";
import { EncodedReply } from "../infra/call.ts";
import type { FieldViolation } from "../infra/failure.ts";
import type { FencingTokenStaleError } from "../infra/fencing.ts";
import type { Change } from "./change.ts";
import type { FeedEvent } from "./feed.ts";
import { LIMITS } from "./fields.ts";
import type { Held } from "./l1.ts";
import type { Namespace } from "./namespace.ts";
import type { Found } from "./reads.ts";
import type { CacheRecord } from "./record.ts";
import { encodeGet, encodeGetMany, encodeSet, type GetFields, sizeOfResult } from "./wire.ts";
import type { SetDecision } from "./writes.ts";

const OUTCOMES = { hit: CacheOutcome.HIT, stale: CacheOutcome.STALE, miss: CacheOutcome.MISS } as const;

export function timestamp(ms: number | undefined): Timestamp | undefined {
  return ms === undefined ? undefined : timestampFromMs(Math.round(ms));
}

/** Leaves out what is undefined: an unset message field. */
export function expireTime(expiresAt: number | undefined): { expireTime?: Timestamp } {
  const time = timestamp(expiresAt);
  return time === undefined ? {} : { expireTime: time };
}

export function entryOf(key: string, record: CacheRecord): CacheEntry {
  const { data, contentType } = record.value;
  const kind =
    typeof data === "string" ? { case: "text" as const, value: data } : { case: "raw" as const, value: bytesOf(data) };
  return create(CacheEntrySchema, {
    key,
    value: create(ValueSchema, { kind, contentType }),
    version: BigInt(record.version),
    tags: [...record.tags],
    ...expireTime(record.expiresAt),
  });
}

/** A plain view, also of a Buffer: what encoders and comparisons expect. */
function bytesOf(data: Uint8Array): Uint8Array<ArrayBuffer> {
  return data.constructor === Uint8Array && data.buffer instanceof ArrayBuffer
    ? (data as Uint8Array<ArrayBuffer>)
    : new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
}

export function getReply(key: string, { outcome, record, lease }: Found): EncodedReply {
  return new EncodedReply(encodeGet({ outcome: OUTCOMES[outcome], key, record }, lease));
}

export function hitReply(key: string, held: Held): EncodedReply {
  return new EncodedReply(encodeGet({ outcome: CacheOutcome.HIT, key, record: held.record }, undefined));
}

/** The reply to a GetMany whose keys are all in memory. */
export function hitsReply(keys: readonly string[], held: readonly Held[]): EncodedReply {
  return new EncodedReply(
    encodeGetMany(keys.map((key, i) => ({ outcome: CacheOutcome.HIT, key, record: held[i]?.record }))),
  );
}

/** What stands for one key in the reply to a GetMany. */
export type GetManyResult = { readonly key: string; readonly found: Found } | FieldViolation | "no room";

export function getManyReply(results: readonly GetManyResult[]): EncodedReply {
  return new EncodedReply(
    encodeGetMany(
      results.map((result) => {
        if (result === "no room") return NO_ROOM;
        if ("found" in result) return fieldsOf(result.key, result.found);
        return toBinary(GetResultSchema, create(GetResultSchema, { error: itemError(result) }));
      }),
    ),
  );
}

function fieldsOf(key: string, { outcome, record }: Found): GetFields {
  return { outcome: OUTCOMES[outcome], key, record };
}

const NO_ROOM = toBinary(
  GetResultSchema,
  create(GetResultSchema, {
    error: {
      code: "RESOURCE_EXHAUSTED",
      reason: "REPLY_TOO_LARGE",
      message: "the reply has no room for this key: ask for it again, without the others",
    },
  }),
);
/** What an error can take in a reply: room for one is kept for each key, whatever becomes of it. */
const ERROR_BYTES = 160;

/** Whether results still fit into a reply to this many keys. */
export function replyRoom(count: number): (key: string, found: Found) => boolean {
  let left = LIMITS.replyBytes - count * ERROR_BYTES;
  return (key, found) => {
    const size = found.record === undefined ? 0 : sizeOfResult(fieldsOf(key, found));
    if (size > left) return false;
    left -= size;
    return true;
  };
}

/** The reply to a Set. */
export function setReply(answer: SetDecision): EncodedReply {
  const stored = answer.outcome === "stored" ? answer : undefined;
  return new EncodedReply(encodeSet(SET_OUTCOMES[answer.outcome], stored?.version ?? 0, stored?.expiresAt));
}

/** What the single-item RPC would have answered to the same mistake. */
export function itemError({ field, description }: FieldViolation): ItemError {
  return create(ItemErrorSchema, {
    code: "INVALID_ARGUMENT",
    reason: "FIELD_INVALID",
    field,
    message: `${field}: ${description}`,
  });
}

/** The same for a token that turned out to be old while the items were carried out: no field of the item is to blame. */
export function staleError({ reason, message }: FencingTokenStaleError): ItemError {
  return create(ItemErrorSchema, { code: "FAILED_PRECONDITION", reason, message });
}

const SET_OUTCOMES = {
  stored: SetOutcome.STORED,
  lease_lost: SetOutcome.LEASE_LOST,
  overtaken: SetOutcome.OVERTAKEN,
  exists: SetOutcome.EXISTS,
} as const;

/** The fields of a SetResult but for its error. */
export function setFields(answer: SetDecision) {
  const outcome = SET_OUTCOMES[answer.outcome];
  if (answer.outcome !== "stored") return { outcome };
  return { outcome, version: BigInt(answer.version), ...expireTime(answer.expiresAt) };
}

const CHANGE_KINDS = {
  set: CacheChange_Kind.SET,
  deleted: CacheChange_Kind.DELETED,
  tag: CacheChange_Kind.TAG_INVALIDATED,
  namespace: CacheChange_Kind.NAMESPACE_INVALIDATED,
  drop: CacheChange_Kind.UNSPECIFIED,
  clock: CacheChange_Kind.UNSPECIFIED,
} as const;

function changeOf({ kind, subject, version }: Change) {
  const isKey = kind === "set" || kind === "deleted";
  return create(CacheChangeSchema, {
    kind: CHANGE_KINDS[kind],
    ...(isKey ? { key: subject, version: BigInt(version) } : { tag: subject }),
  });
}

export function watchReply(sequence: bigint, event: FeedEvent, instanceId: string): CacheServiceWatchResponse {
  switch (event.kind) {
    case "opened":
      return create(CacheServiceWatchResponseSchema, {
        sequence,
        event: { case: "opened", value: create(WatchOpenedSchema, { instanceId }) },
      });
    case "change":
      return create(CacheServiceWatchResponseSchema, {
        sequence,
        event: { case: "change", value: changeOf(event.change) },
      });
    case "heartbeat":
      return create(CacheServiceWatchResponseSchema, {
        sequence,
        event: { case: "heartbeat", value: create(WatchHeartbeatSchema) },
      });
    case "discontinuity":
      return create(CacheServiceWatchResponseSchema, {
        sequence,
        event: { case: "discontinuity", value: create(WatchDiscontinuitySchema, { reason: event.reason }) },
      });
  }
}

export function statsOf({ name, counters }: Namespace): NamespaceStats {
  const counts = Object.entries(counters).map(([field, count]): [string, bigint] => [
    field,
    BigInt(Math.max(0, count)),
  ]);
  return create(NamespaceStatsSchema, { namespace: name, ...Object.fromEntries(counts) });
}
