import type { BadTables, RequestFields } from "./bad-rows.ts";
import {
  anything,
  type BadValue,
  bad,
  durations,
  pageSizes,
  pageToken,
  requestIds,
  texts,
  tokens,
} from "./bad-value.ts";

const lockNames: readonly BadValue[] = [
  ...texts(["name", "name"], 1_024),
  bad("without a namespace before its slash", { name: "/a" }, "name"),
  bad("129 bytes before its slash", { name: `${"n".repeat(129)}/a` }, "name"),
  bad("130 bytes in 65 characters before its slash", { name: `${"é".repeat(65)}/a` }, "name"),
];

/** Of a lease that lasts at least so long. */
const ttls = (least: BadValue): readonly BadValue[] => [
  ...durations("ttl", "ttl", 86_400n),
  bad("zero", { ttl: {} }, "ttl"),
  least,
];
const shortLease = bad("99 ms", { ttl: { nanos: 99_000_000 } }, "ttl");
const shortHold = bad("999 ms", { ttl: { nanos: 999_000_000 } }, "ttl");

const token: readonly BadValue[] = [bad("0", { fencingToken: 0n }, "fencing_token")];

export const badLockValues: Readonly<Record<string, readonly BadValue[]>> = {
  name: lockNames,
  owner: texts(["owner", "owner"], 256, true),
  purpose: texts(["purpose", "purpose"], 1_024, true),
  request_id: requestIds,
  ttl: ttls(shortLease),
  fencing_token: token,
  "Acquire.wait_timeout": durations("wait_timeout", "waitTimeout", 3_600n),
  "Hold.ttl": ttls(shortHold),
  "Hold.wait_timeout": durations("wait_timeout", "waitTimeout", 86_400n),
  // What no grant has is a value: `lost`.
  "Hold.resume_token": anything,
  // 0: whoever holds it.
  "ForceRelease.fencing_token": anything,
  "ForceRelease.reason": texts(["reason", "reason"], 1_024),
  "List.prefix": texts(["prefix", "prefix"], 1_024, true),
  "List.page_size": pageSizes,
  "List.page_token": tokens(pageToken, 1),
};

const none = { seconds: 0n };

/** A request that is fine, for each RPC. */
export const goodLockRequests: Readonly<Record<string, RequestFields>> = {
  "LockService.Acquire": { name: "good", waitTimeout: none },
  "LockService.Renew": { name: "good", fencingToken: 1n },
  "LockService.Release": { name: "good", fencingToken: 1n },
  "LockService.Hold": { name: "good", waitTimeout: none },
  "LockService.Get": { name: "good" },
  "LockService.List": {},
  "LockService.ForceRelease": { name: "good", fencingToken: 1n, reason: "to see" },
  "LockService.CheckToken": { name: "good", fencingToken: 1n },
};

export const lockTables: BadTables = { goodRequests: goodLockRequests, badValues: badLockValues };

/** What is odd, and right all the same. */
export const oddLockRequests: readonly (readonly [string, string, RequestFields])[] = [
  ["a name of 1,024 bytes in 512 characters", "Get", { name: "é".repeat(512) }],
  ["a name of the oddest characters", "Acquire", { name: "a b/{c}*?[e]\\\n\u{1f600}%:", waitTimeout: none }],
  ["a namespace of 128 bytes", "Get", { name: `${"n".repeat(128)}/` }],
  ["a lease of 100 ms", "Acquire", { name: "short", ttl: { nanos: 100_000_000 }, waitTimeout: none }],
  ["a lease of 24 hours", "Acquire", { name: "long", ttl: { seconds: 86_400n }, waitTimeout: none }],
  ["an hour to wait for what is free", "Acquire", { name: "waited", waitTimeout: { seconds: 3_600n } }],
  ["a request id of 128 bytes", "Acquire", { name: "named", requestId: "r".repeat(128), waitTimeout: none }],
  ["the largest token", "Renew", { name: "good", fencingToken: 2n ** 64n - 1n }],
  ["the largest token, to check", "CheckToken", { name: "good", fencingToken: 2n ** 64n - 1n }],
  ["the largest token, to go on with", "Hold", { name: "good", resumeToken: 2n ** 64n - 1n }],
  ["the largest token, to take away", "ForceRelease", { name: "good", fencingToken: 2n ** 64n - 1n, reason: "r" }],
  ["the largest page", "List", { pageSize: 2 ** 31 - 1 }],
  ["a prefix of half a namespace", "List", { prefix: "go" }],
  ["a prefix of one percent and an underscore", "List", { prefix: "%_" }],
];
