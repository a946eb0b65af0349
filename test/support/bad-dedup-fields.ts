import { DedupState } from "../../src/gen/holdfast/v1/dedup_pb.js";
import { writeNamedToken } from "../../src/infra/token.ts";
import {
  anything,
  type BadValue,
  bad,
  durations,
  type Name,
  numbers,
  pageSizes,
  pageToken,
  requestIds,
  texts,
  tokens,
} from "./bad-value.ts";

const TEN_YEARS = 10n * 365n * 86_400n;
const MIB = 2 ** 20;
const id = (name: "key" | "checksum", value: unknown) => ({ id: { kind: { case: name, value } } });
const good = id("key", "good");
const namespace: Name = ["namespace", "namespace"];
const owner: Name = ["owner", "owner"];
const elsewhere = writeNamedToken('dedup List ["elsewhere","",null,""]', { place: [0], name: "a" });

const ids = [
  bad("unset", { id: undefined }, "id"),
  bad("neither key nor checksum", { id: {} }, "id"),
  bad("an empty key", id("key", ""), "id.key"),
  bad("a key of 1,025 bytes", id("key", "k".repeat(1_025)), "id.key"),
  bad("a key over 1,024 bytes in fewer characters", id("key", "é".repeat(513)), "id.key"),
  bad("a key with a NUL", id("key", "a\0b"), "id.key"),
  bad("an empty checksum", id("checksum", new Uint8Array()), "id.checksum"),
  bad("a checksum of 15 bytes", id("checksum", new Uint8Array(15)), "id.checksum"),
  bad("a checksum of 65 bytes", id("checksum", new Uint8Array(65)), "id.checksum"),
  bad("the digits of a checksum", id("checksum", Buffer.from("0123456789abcdef".repeat(4))), "id.checksum"),
  bad("digits read as base64", id("checksum", Buffer.from("0123456789abcdef".repeat(4), "base64")), "id.checksum"),
];

const text = (value: string, contentType = "") => ({ kind: { case: "text", value }, contentType });

/** What is bad for a field, by its name. */
export const badDedupValues: Readonly<Record<string, readonly BadValue[]>> = {
  namespace: [
    ...texts(namespace, 128, true),
    ...["a/b", "a b", "ä", "a\n", "*"].map((name) => bad(JSON.stringify(name), { namespace: name }, "namespace")),
  ],
  id: ids,
  ttl: durations("ttl", "ttl", TEN_YEARS, 1n),
  lease_ttl: durations("lease_ttl", "leaseTtl", 86_400n, 1n),
  completed: [bad("with a lease", { completed: true, leaseTtl: { seconds: 1n } }, "lease_ttl")],
  owner: texts(owner, 256, true),
  request_id: [
    ...requestIds,
    bad("of another claim", { requestId: "taken", owner: "else" }, "", "FAILED_PRECONDITION", "REQUEST_ID_REUSED"),
  ],
  claim_token: [bad("0", { claimToken: 0n }, "claim_token")],
  result: [
    bad("neither raw nor text", { result: {} }, "result"),
    bad("a byte over 4 MiB", { result: { kind: { case: "raw", value: new Uint8Array(4 * MIB + 1) } } }, "result"),
    bad("over 4 MiB in fewer characters", { result: text("é".repeat(2 * MIB + 1)) }, "result"),
    bad("a content type of 129 bytes", { result: text("", "c".repeat(129)) }, "result.content_type"),
    bad("a content type with a NUL", { result: text("", "a\0") }, "result.content_type"),
  ],
  forget_completed: anything,
  prefix: texts(["prefix", "prefix"], 1_024, true),
  state: numbers(["state", "state"], DedupState),
  page_size: pageSizes,
  page_token: [
    ...tokens(pageToken, 1),
    bad("of another namespace", { pageToken: elsewhere }, "page_token"),
    bad("with another filter", { pageToken: elsewhere, namespace: "elsewhere", owner: "o" }, "page_token"),
  ],
};

export const goodDedupRequests: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "DedupService.Claim": { ...good, requestId: "taken" },
  "DedupService.Complete": { ...id("key", "absent"), claimToken: 1n },
  "DedupService.Release": { ...id("checksum", new Uint8Array(16)), claimToken: 1n },
  "DedupService.Get": good,
  "DedupService.List": {},
};
