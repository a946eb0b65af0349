import type { DescMethod } from "@bufbuild/protobuf";
import {
  ConversationExpiry_Mode,
  ConversationMessageOrder,
  ConversationOrder,
  ConversationStateService,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import type { Ending } from "./bad-caller.ts";
import type { RequestFields } from "./bad-rows.ts";
import {
  anything,
  type BadValue,
  bad,
  durations,
  expiries,
  fences,
  MAX_UINT64,
  many,
  type Name,
  names,
  nestedStruct,
  numbers,
  pageSizes,
  pageToken,
  requestIds,
  resumeToken,
  texts,
  times,
  tokens,
} from "./bad-value.ts";

const MIB = 2 ** 20;

const message = { role: "user", content: "said" };
const notKept = bad("one that never was", { version: MAX_UINT64 }, "", "NOT_FOUND", "VERSION_NOT_KEPT");
const conflict = bad("not the current one", { expectedVersion: MAX_UINT64 }, "", "ABORTED", "VERSION_CONFLICT");
const zero = bad("0", { expectedVersion: 0n }, "expected_version");

/** Of JSON in a field: `put` lays it into the request. */
const json = (field: string, put: (json: unknown) => Record<string, unknown>): BadValue[] => [
  bad("NaN", put({ k: Number.NaN }), `${field}.k`),
  bad("infinity in a list", put({ l: [0, Number.POSITIVE_INFINITY] }), `${field}.l[1]`),
  bad("minus infinity, deep inside", put({ a: { b: [{ c: Number.NEGATIVE_INFINITY }] } }), `${field}.a.b[0].c`),
  bad("31 levels", put(nestedStruct(31, "n")), `${field}${".n[0]".repeat(15)}`),
];

const structs = (field: string): BadValue[] => [
  ...json(field, (value) => ({ [field]: value })),
  bad("101 levels", { [field]: nestedStruct(101, "n") }, `${field}${".n[0]".repeat(15)}`),
  bad("messages", { [field]: { messages: [] } }, `${field}.messages`),
  bad("_metadata", { [field]: { _metadata: {} } }, `${field}._metadata`),
  bad("a little over 4 MiB", { [field]: { k: "x".repeat(4 * MIB) } }, "", "RESOURCE_EXHAUSTED", "STATE_TOO_LARGE"),
  bad("10 MB", { [field]: { k: "x".repeat(10_000_000) } }, "", "RESOURCE_EXHAUSTED", "STATE_TOO_LARGE"),
  bad(
    "10 MB of small members",
    { [field]: { list: many(900_000, () => 0) } },
    "",
    "RESOURCE_EXHAUSTED",
    "STATE_TOO_LARGE",
  ),
];

const tooMany = (what: string, messages: readonly unknown[]) =>
  bad(what, { messages }, "", "RESOURCE_EXHAUSTED", "TOO_MANY_MESSAGES");
const messageLists = [
  tooMany(
    "1,001 of them",
    many(1_001, () => message),
  ),
  tooMany(
    "over 4 MiB together",
    many(17, () => ({ ...message, content: "x".repeat(255 * 1024) })),
  ),
  bad("one with an id twice", { messages: many(2, () => ({ ...message, id: "twice" })) }, "messages[1].id"),
  bad("the second wrong", { messages: [message, { content: "x" }] }, "messages[1].role"),
];

/** Of parts there is no entry: they are gone into. */
const parts = [
  bad("a part of no kind", { messages: [{ ...message, parts: [{}] }] }, "messages[0].parts[0]"),
  bad(
    "101 parts",
    { messages: [{ ...message, parts: many(101, () => ({ kind: { case: "text", value: "x" } })) }] },
    "messages[0].parts",
  ),
];

const tooLarge = (what: string, fields: Record<string, unknown>) =>
  bad(what, fields, "", "RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE");

const roles = [
  bad("17 of them", { roles: many(17, String) }, "roles"),
  bad("an empty one", { roles: ["user", ""] }, "roles[1]"),
  bad("one of 65 bytes", { roles: ["r".repeat(65)] }, "roles[0]"),
  bad("one with a NUL", { roles: ["\0"] }, "roles[0]"),
];

const name = (field: string, localName = field): Name => [field, localName];
const start = (kind: string, value: unknown) => ({ start: { case: kind, value } });

/** What is wrong for a field of ConversationStateService; see BadTables. */
export const badConversationValues: Readonly<Record<string, readonly BadValue[]>> = {
  collection: names(name("collection"), true),
  id: texts(name("id"), 512),
  state: [bad("unset", { state: undefined }, "state"), ...structs("state")],
  patch: structs("patch"),
  "Patch.patch": [bad("unset", { patch: undefined }, "patch"), ...structs("patch")],
  expected_version: [conflict, zero],
  "Save.expected_version": [conflict],
  "AppendMessages.expected_version": [conflict, zero],
  // Deleting what is not there succeeds, whatever version is expected.
  "Delete.expected_version": [zero],
  expiry: [
    ...expiries,
    ...numbers(name("mode"), ConversationExpiry_Mode).map(({ what, fields }) =>
      bad(`a mode of ${what}`, { expiry: fields }, "expiry.mode"),
    ),
  ],
  request_id: requestIds,
  fencing: fences,
  return_conflict: anything,
  return_state: anything,
  create: anything,
  keep_messages: anything,
  page_size: pageSizes,
  page_token: tokens(pageToken, 1),
  "ListMessages.page_token": tokens(pageToken, 3),
  heartbeat_interval: durations("heartbeat_interval", "heartbeatInterval", 300n, 1n),

  "Save.messages": [...messageLists, ...parts],
  "AppendMessages.messages": [bad("none", { messages: [] }, "messages"), ...messageLists, ...parts],
  "Get.version": [notKept],
  "Get.last_messages": [-1, -(2 ** 31), 1_001, 2 ** 31 - 1].map((lastMessages) =>
    bad(String(lastMessages), { lastMessages }, "last_messages"),
  ),
  "Get.min_version": [
    bad("more than the version", { version: 1n, minVersion: 2n }, "min_version"),
    bad("not reached", { minVersion: MAX_UINT64 }, "", "FAILED_PRECONDITION", "VERSION_NOT_REACHED"),
  ],
  "Get.bypass_hot_copy": anything,
  "List.updated_since": times(["updated_since", "updatedSince"]),
  "List.order": numbers(name("order"), ConversationOrder),
  "ListMessages.order": numbers(name("order"), ConversationMessageOrder),
  "ListMessages.after_position": anything,
  "ListMessages.roles": roles,
  "Cleanup.limit": [-1, -(2 ** 31)].map((limit) => bad(String(limit), { limit }, "limit")),
  "Cleanup.dry_run": anything,
  "Restore.version": [bad("0", { version: 0n }, "version"), notKept],
  "Fork.version": [notKept],
  "Fork.target_collection": names(["target_collection", "targetCollection"], true),
  "Fork.target_id": [
    ...texts(["target_id", "targetId"], 512, true),
    bad("that of another", { targetId: "good" }, "", "ALREADY_EXISTS", "CONVERSATION_EXISTS"),
  ],
  "Watch.id": texts(name("id"), 512, true),
  "Watch.resume_token": tokens(resumeToken, 1).map(({ what, fields }) =>
    bad(what, start("resumeToken", fields.resumeToken), "resume_token"),
  ),
  "Watch.after_version": [
    bad("without an id", start("afterVersion", 7n), "after_version"),
    bad(
      "not reached",
      { id: "good", ...start("afterVersion", MAX_UINT64) },
      "",
      "FAILED_PRECONDITION",
      "VERSION_NOT_REACHED",
    ),
  ],
  "Watch.include_state": anything,
  "Watch.include_messages": anything,

  "ConversationFilter.statuses": [
    bad("101 of them", { statuses: many(101, String) }, "statuses"),
    bad("one of 513 bytes", { statuses: ["", "s".repeat(513)] }, "statuses[1]"),
    bad("one with a NUL", { statuses: ["\0"] }, "statuses[0]"),
  ],
  "ConversationFilter.user_id": texts(["user_id", "userId"], 512, true),

  "ConversationMessage.id": texts(name("id"), 128, true),
  "ConversationMessage.role": texts(name("role"), 64),
  "ConversationMessage.content": [
    bad("empty, without parts", { content: "" }, "content"),
    tooLarge("256 KiB", { content: "x".repeat(256 * 1024) }),
    tooLarge("256 KiB in fewer characters", { content: "é".repeat(128 * 1024) }),
    tooLarge("10 MB", { content: "x".repeat(10_000_000) }),
  ],
  "ConversationMessage.create_time": times(["create_time", "createTime"]),
  "ConversationMessage.metadata": [
    ...json("metadata", (metadata) => ({ metadata })),
    tooLarge("256 KiB", { metadata: { k: "x".repeat(256 * 1024) } }),
  ],
  "ConversationMessage.position": anything,
  "ConversationPart.text": [tooLarge("256 KiB", { kind: { case: "text", value: "x".repeat(256 * 1024) } })],
  "ConversationPart.data": json("data", (value) => ({ kind: { case: "data", value } })),
  "ConversationToolCall.id": texts(name("id"), 128, true),
  "ConversationToolCall.name": texts(name("name"), 256),
  "ConversationToolCall.arguments": json("arguments", (value) => ({ arguments: value })),
  "ConversationToolResult.call_id": texts(["call_id", "callId"], 128, true),
  "ConversationToolResult.result": [
    bad("NaN", { result: { kind: { case: "numberValue", value: Number.NaN } } }, "result"),
    bad("infinity", { result: { kind: { case: "numberValue", value: Number.POSITIVE_INFINITY } } }, "result"),
  ],
  "ConversationToolResult.is_error": anything,
  "ConversationReference.uri": [
    ...texts(name("uri"), 4_096),
    ...["data:,x", " \n DATA:image/png;base64,AA=="].map((uri) => bad(JSON.stringify(uri), { uri }, "uri")),
  ],
  "ConversationReference.media_type": texts(["media_type", "mediaType"], 128, true),
  "ConversationReference.size_bytes": anything,
  "ConversationReference.sha256": [1, 31, 33, MIB / 8].map((length) =>
    bad(`${length} bytes`, { sha256: new Uint8Array(length) }, "sha256"),
  ),
  "ConversationReference.name": texts(name("name"), 256, true),
};

/** Messages within requests that are fine. */
export const goodConversationParts: Readonly<Record<string, RequestFields>> = {
  ConversationFilter: {},
  ConversationMessage: message,
  ConversationPart: { kind: { case: "text", value: "" } },
  ConversationToolCall: { name: "tool" },
  ConversationToolResult: {},
  ConversationReference: { uri: "s3://bucket/key" },
};

/** A request that is fine, for each RPC, where `prepareConversations` has been. */
export const goodConversationRequests: Readonly<Record<string, RequestFields>> = {
  "ConversationStateService.Save": { id: "good", state: {} },
  "ConversationStateService.Get": { id: "good" },
  "ConversationStateService.Delete": { id: "deleted" },
  "ConversationStateService.Exists": { id: "good" },
  "ConversationStateService.ExtendTtl": { id: "good" },
  "ConversationStateService.List": {},
  "ConversationStateService.AppendMessages": { id: "good", messages: [message] },
  "ConversationStateService.ListMessages": { id: "good" },
  "ConversationStateService.Patch": { id: "good", patch: {} },
  "ConversationStateService.GetStatus": { id: "good" },
  "ConversationStateService.Watch": {},
  "ConversationStateService.Cleanup": {},
  "ConversationStateService.GetStats": {},
  "ConversationStateService.ListVersions": { id: "good" },
  // Only the newest version is kept, so a good one is not known beforehand.
  "ConversationStateService.Restore": { id: "good", version: 1n },
  "ConversationStateService.Fork": { id: "good" },
};

/** Makes the conversation that the good requests ask for. */
export async function prepareConversations(
  call: (rpc: DescMethod, request: RequestFields) => Promise<Ending>,
): Promise<void> {
  const { code, message: why } = await call(ConversationStateService.method.save, { id: "good", state: {} });
  if (code !== "OK") throw new Error(`Save: ${code} ${why}`);
}
