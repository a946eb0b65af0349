import type { CacheServiceGetRequest, Expiry, SetItem, Value } from "../gen/holdfast/v1/cache_pb.js";
import type { CallContext } from "../infra/call.ts";
import type { RequestedExpiry } from "./expiry.ts";
import { type CacheFields, LIMITS } from "./fields.ts";
import type { NamespacePolicy } from "./policy.ts";
import type { LeaseWish } from "./reads.ts";
import type { CacheValue } from "./record.ts";
import type { SetOrder } from "./writes.ts";

/** What the fields of requests mean; what is wrong with them goes to `fields`. */

export function expiryOf(fields: CacheFields, field: string, expiry: Expiry | undefined): RequestedExpiry {
  switch (expiry?.kind.case) {
    case undefined:
      return "policy";
    case "never":
      if (!expiry.kind.value) fields.refuse(`${field}.never`, "must be true when it is set");
      return "never";
    case "ttl": {
      const ttlMs = fields.duration(`${field}.ttl`, expiry.kind.value, LIMITS.ttlMs);
      return ttlMs === undefined ? "policy" : { ttlMs };
    }
  }
}

export function cacheValueOf(
  fields: CacheFields,
  field: string,
  value: Value | undefined,
  policy: NamespacePolicy,
): CacheValue {
  if (value?.kind.case === undefined) {
    fields.refuse(field, "is required: set raw or text");
    return { data: "", contentType: "" };
  }
  const data = value.kind.value;
  const bytes = typeof data === "string" ? Buffer.byteLength(data) : data.byteLength;
  if (bytes > policy.maxBytes) fields.refuse(field, `is ${bytes} bytes long; the limit is ${policy.maxBytes}`);
  const { contentType } = value;
  fields.text(`${field}.content_type`, contentType, LIMITS.contentTypeBytes, true);
  return { data, contentType };
}

export function tagsOf(fields: CacheFields, field: string, tags: readonly string[]): readonly string[] {
  if (tags.length > LIMITS.tags) fields.refuse(field, `has ${tags.length} elements; the limit is ${LIMITS.tags}`);
  tags.forEach((tag, i) => {
    fields.text(`${field}[${i}]`, tag, LIMITS.tagBytes);
  });
  return tags.length < 2 ? tags : [...new Set(tags)];
}

export function orderOf(
  fields: CacheFields,
  item: Pick<SetItem, "key" | "value" | "expiry" | "tags" | "ifAbsent">,
  leaseToken: string,
  policy: NamespacePolicy,
): SetOrder {
  fields.key("key", item.key);
  return {
    key: item.key,
    value: cacheValueOf(fields, "value", item.value, policy),
    expiry: expiryOf(fields, "expiry", item.expiry),
    tags: tagsOf(fields, "tags", item.tags),
    ifAbsent: item.ifAbsent,
    leaseToken,
  };
}

/** An answer must still travel: waiting ends this much before the caller stops listening. */
const TRAVEL_MS = 50;

export function wishOf(fields: CacheFields, request: CacheServiceGetRequest, call: CallContext): LeaseWish | undefined {
  const ttlMs = fields.duration("lease_ttl", request.leaseTtl, LIMITS.leaseTtlMs);
  const asked = fields.duration("wait_timeout", request.waitTimeout, LIMITS.waitMs, true);
  if (request.waitTimeout !== undefined && request.leaseTtl === undefined) {
    fields.refuse("wait_timeout", "has no meaning without lease_ttl");
  }
  if (ttlMs === undefined) return undefined;
  const left = call.deadline === undefined ? LIMITS.waitMs : call.deadline - Date.now() - TRAVEL_MS;
  const waitMs = Math.max(0, Math.min(asked ?? LIMITS.waitMs, left));
  return {
    ttlMs,
    waitMs,
    get signal() {
      return call.signal;
    },
  };
}

/** A version from the wire. One beyond what this server ever gives out matches nothing, which is right. */
export function versionOf(version: bigint): number {
  return Number(version);
}
