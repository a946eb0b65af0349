import { goodAuditRequests } from "./bad-audit-fields.ts";
import { anything, type BadValue, bad, durations, expiries, fences, many, pageSizes, requestIds } from "./bad-value.ts";

export const text = (value: string, contentType = "") => ({ kind: { case: "text", value }, contentType });
const bytes = (length: number) => ({ kind: { case: "raw", value: new Uint8Array(length) } });

const keys = [
  bad("empty", { key: "" }, "key"),
  bad("1,025 bytes", { key: "k".repeat(1_025) }, "key"),
  bad("1,026 bytes in 513 characters", { key: "é".repeat(513) }, "key"),
  bad("1 MiB", { key: "k".repeat(2 ** 20) }, "key"),
  bad("a NUL within", { key: "a\0b" }, "key"),
];

const namespaces = [
  bad("129 bytes", { namespace: "n".repeat(129) }, "namespace"),
  bad("a slash", { namespace: "a/b" }, "namespace"),
  bad("a space", { namespace: "a b" }, "namespace"),
  bad("braces", { namespace: "{a}" }, "namespace"),
  bad("a line break at its end", { namespace: "a\n" }, "namespace"),
  bad("an umlaut", { namespace: "ä" }, "namespace"),
  bad("a NUL", { namespace: "a\0" }, "namespace"),
];

const values = [
  bad("unset", { value: undefined }, "value"),
  bad("of no kind", { value: {} }, "value"),
  bad("a byte over 4 MiB", { value: bytes(4 * 2 ** 20 + 1) }, "value"),
  bad("5 MiB of text", { value: text("x".repeat(5 * 2 ** 20)) }, "value"),
  bad("over 4 MiB in fewer characters", { value: text("é".repeat(2 * 2 ** 20 + 1)) }, "value"),
  bad("a content type of 129 bytes", { value: text("", "c".repeat(129)) }, "value.content_type"),
  bad("a content type with a NUL", { value: text("", "a\0") }, "value.content_type"),
];

const itemTags = [
  bad("an empty one", { tags: ["a", ""] }, "tags[1]"),
  bad("one of 257 bytes", { tags: ["t".repeat(257)] }, "tags[0]"),
  bad("one with a NUL", { tags: ["a", "b", "\0"] }, "tags[2]"),
  bad("65 of them", { tags: many(65, String) }, "tags"),
];

const prefixes = [
  bad("1,025 bytes", { prefix: "p".repeat(1_025) }, "prefix"),
  bad("a NUL", { prefix: "\0" }, "prefix"),
];

const batch = (field: string, one: (i: number) => unknown) => [
  bad("none", { [field]: [] }, field),
  bad("1,001", { [field]: many(1_001, one) }, field),
];

const token = (parts: unknown) => Buffer.from(JSON.stringify(parts)).toString("base64url");

const pageTokens = [
  bad("garbage", { pageToken: "garbage" }, "page_token"),
  bad("not base64", { pageToken: "%%%\0" }, "page_token"),
  bad("of another namespace", { pageToken: token(["elsewhere", "", "sql:a"]) }, "page_token"),
  bad("of another prefix", { pageToken: token(["default", "p", "sql:a"]) }, "page_token"),
  bad("cut off", { pageToken: token(["default", "", "sql:a"]).slice(0, -6) }, "page_token"),
  bad("JSON of another shape", { pageToken: token({ a: [1] }) }, "page_token"),
  bad("a number for a cursor", { pageToken: token(["default", "", 7]) }, "page_token"),
  bad("100,000 brackets", { pageToken: Buffer.from("[".repeat(100_000)).toString("base64url") }, "page_token"),
];

/**
 * What is wrong for a field, by its name: under "Rpc.field" where an RPC differs. Every field of every request has an entry,
 * so that a new one cannot be left out.
 */
export const badValues: Readonly<Record<string, readonly BadValue[]>> = {
  namespace: namespaces,
  key: keys,
  value: values,
  expiry: expiries,
  tags: itemTags,
  request_id: requestIds,
  fencing: fences,
  prefix: prefixes,
  bypass_l1: anything,
  delta: anything,
  initial: anything,
  expected_version: anything,
  wait: anything,
  if_absent: [bad("with a lease", { ifAbsent: true, leaseToken: `1.1.${"A".repeat(16)}` }, "if_absent")],
  lease_ttl: [...durations("lease_ttl", "leaseTtl", 600n), bad("zero", { leaseTtl: {} }, "lease_ttl")],
  wait_timeout: [
    ...durations("wait_timeout", "waitTimeout", 30n).map((one) => ({
      ...one,
      fields: { leaseTtl: { seconds: 1n }, ...one.fields },
    })),
    bad("without a lease", { waitTimeout: { seconds: 1n } }, "wait_timeout"),
  ],
  lease_token: [
    bad("garbage", { leaseToken: "garbage" }, "lease_token"),
    bad("cut off", { leaseToken: "1.1.AAAA" }, "lease_token"),
    bad("a NUL", { leaseToken: "1.1.AAAAAAAAAAAAAAA\0" }, "lease_token"),
    bad("1 MiB", { leaseToken: "1".repeat(2 ** 20) }, "lease_token"),
  ],
  page_size: pageSizes,
  page_token: pageTokens,
  patterns: [
    bad("101", { patterns: many(101, String) }, "patterns"),
    bad("an empty one", { patterns: ["a", ""] }, "patterns[1]"),
    bad("one of 1,025 bytes", { patterns: ["*".repeat(1_025)] }, "patterns[0]"),
    bad("one with a NUL", { patterns: ["a\0*"] }, "patterns[0]"),
    bad("none, where the policy has none either", { patterns: [] }, "patterns"),
  ],
  heartbeat_interval: durations("heartbeat_interval", "heartbeatInterval", 300n, 1n),
  interval: durations("interval", "interval", 3_600n, 1n),
  keys: batch("keys", String),
  items: batch("items", (i) => ({ key: String(i), value: text("") })),
  "InvalidateTags.tags": [
    ...batch("tags", String),
    bad("an empty one", { tags: ["a", ""] }, "tags[1]"),
    bad("one of 257 bytes", { tags: ["t".repeat(257)] }, "tags[0]"),
    bad("one with a NUL", { tags: ["\0"] }, "tags[0]"),
  ],
  "SetItem.if_absent": anything,
};

/** A request that is fine, for each RPC. */
export const goodRequests: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "CacheService.Get": { key: "good" },
  "CacheService.GetMany": { keys: ["good", "absent"] },
  "CacheService.Set": { key: "good", value: text("fine") },
  "CacheService.SetMany": { items: [{ key: "good", value: text("fine") }] },
  "CacheService.Delete": { key: "deleted" },
  "CacheService.DeleteMany": { keys: ["deleted"] },
  "CacheService.Exists": { key: "good" },
  "CacheService.Touch": { key: "good" },
  "CacheService.Increment": { key: "counter" },
  "CacheService.CompareAndSet": { key: "swapped", value: text("fine"), expectedVersion: 1n },
  "CacheService.InvalidateTags": { tags: ["a"] },
  "CacheService.InvalidateNamespace": { namespace: "invalidated" },
  "CacheService.ListKeys": {},
  "CacheService.Warm": { patterns: ["good"], wait: true },
  "CacheService.GetStats": {},
  "CacheService.Watch": {},
  "HealthService.Report": {},
  "HealthService.Watch": {},
  ...goodAuditRequests,
};
