import type { DescMethod } from "@bufbuild/protobuf";
import {
  AuditDecision,
  AuditDurability,
  AuditExportFormat,
  AuditOrder,
  AuditOutcome,
  AuditService,
  AuditStart,
  AuditStatus,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import type { Ending } from "./bad-caller.ts";
import { type RequestFields, rpcName } from "./bad-rows.ts";
import {
  anything,
  type BadValue,
  bad,
  durations,
  MAX_INT64,
  MAX_UINT64,
  many,
  names,
  nestedStruct,
  numbers,
  pageSizes,
  pageToken,
  requestIds,
  resumeToken,
  several,
  texts,
  times,
  tokens,
} from "./bad-value.ts";

const SAFE = BigInt(Number.MAX_SAFE_INTEGER);
const HOURS_12 = 43_200n;

const entry = { actor: "user:42", action: "memory.update" };
const record = { sequence: 1n, entry };

const ids = [
  bad("empty", { id: "" }, "id"),
  ...["p", "p/", "/1", "p/0", "p/01", "p/-1", "p/1e3", "p/1.5", "p/1/1", "p q/1", "@/1", "ä/1", "p/1\n", "p\0/1"].map(
    (id) => bad(JSON.stringify(id), { id }, "id"),
  ),
  bad("a sequence of 2^53", { id: `p/${SAFE + 1n}` }, "id"),
  bad("a producer of 129 bytes", { id: `${"p".repeat(129)}/1` }, "id"),
  bad("1 MiB", { id: "1".repeat(2 ** 20) }, "id"),
];

const unknownRecord = bad("of no record", { id: "nobody/1" }, "", "NOT_FOUND", "RECORD_NOT_FOUND");
const unknownGroup = bad("of nobody", { group: "nobody" }, "", "NOT_FOUND", "GROUP_NOT_FOUND");

const groups = names(["group", "group"], true);

const occurTimes = [
  bad("the last second of 1699", { occurTime: { seconds: -8_520_336_001n, nanos: 999_999_999 } }, "occur_time"),
  bad("the first second of 2200", { occurTime: { seconds: 7_258_118_400n } }, "occur_time"),
  bad("negative nanoseconds", { occurTime: { seconds: 1n, nanos: -1 } }, "occur_time"),
  bad("a billion nanoseconds", { occurTime: { seconds: 1n, nanos: 1_000_000_000 } }, "occur_time"),
  bad("beyond every calendar", { occurTime: { seconds: MAX_INT64 } }, "occur_time"),
  bad("before every calendar", { occurTime: { seconds: -MAX_INT64 - 1n } }, "occur_time"),
];

const structs = (field: string) => [
  bad("31 levels", { [field]: nestedStruct(31) }, field),
  bad("4,097 values", { [field]: Object.fromEntries(many(4_097, (i) => [`k${i}`, i])) }, field),
  bad("4,096 values in a list", { [field]: { all: many(4_096, () => 0) } }, field),
];

const deliveryIds = [
  bad("none", { deliveryIds: [] }, "delivery_ids"),
  bad("1,001", { deliveryIds: many(1_001, (i) => `${i.toString(36)}.1`) }, "delivery_ids"),
];

const treeSizes = [
  bad("more than there is", { treeSize: 2n ** 40n }, "", "OUT_OF_RANGE", "TREE_TOO_SMALL"),
  bad("2^53 + 1", { treeSize: 2n ** 53n + 1n }, "", "OUT_OF_RANGE", "TREE_TOO_SMALL"),
  bad("2^64 - 1", { treeSize: MAX_UINT64 }, "", "OUT_OF_RANGE", "TREE_TOO_SMALL"),
];

const value = (kind: string, of: unknown) => ({ value: { kind: { case: kind, value: of } } });

/** What is wrong for a field of AuditService; see BadTables. */
export const badAuditValues: Readonly<Record<string, readonly BadValue[]>> = {
  request_id: requestIds,
  page_size: pageSizes,
  page_token: tokens(pageToken, 2),
  resume_token: tokens(resumeToken, 1),
  heartbeat_interval: durations("heartbeat_interval", "heartbeatInterval", 300n, 1n),
  min_durability: numbers(["min_durability", "minDurability"], AuditDurability),
  group: groups,
  tree_size: treeSizes,
  delivery_ids: deliveryIds,
  id: ids,

  "Append.producer": names(["producer", "producer"], true),
  "Append.records": [
    bad("none", { records: [] }, "records"),
    bad("1,001", { records: many(1_001, (i) => ({ sequence: BigInt(i + 1), entry })) }, "records"),
    bad("one twice", { records: [record, { ...record, sequence: 2n }, record] }, "records[2].sequence"),
    bad("with a sequence, but without a producer", { producer: "" }, "records[0].sequence"),
  ],
  "AuditAppend.sequence": [
    bad("0", { sequence: 0n }, "sequence"),
    bad("2^53", { sequence: SAFE + 1n }, "sequence"),
    bad("2^53 + 1", { sequence: SAFE + 2n }, "sequence"),
    bad("2^64 - 1", { sequence: MAX_UINT64 }, "sequence"),
  ],
  "AuditAppend.entry": [bad("unset", { entry: undefined }, "entry")],

  "AuditEntry.occur_time": occurTimes,
  "AuditEntry.actor": texts(["actor", "actor"], 256),
  "AuditEntry.action": texts(["action", "action"], 256),
  "AuditEntry.outcome": numbers(["outcome", "outcome"], AuditOutcome),
  "AuditEntry.service": texts(["service", "service"], 128, true),
  "AuditEntry.status": [
    bad("APPROVED", { status: AuditStatus.APPROVED }, "status"),
    bad("REJECTED", { status: AuditStatus.REJECTED }, "status"),
    ...numbers(["status", "status"], AuditStatus),
  ],
  "AuditEntry.attributes": structs("attributes"),
  "AuditEntry.before": structs("before"),
  "AuditEntry.after": structs("after"),
  "AuditResource.type": texts(["type", "type"], 128),
  "AuditResource.id": texts(["id", "id"], 512),
  "AuditRequestContext.ip_address": texts(["ip_address", "ipAddress"], 64, true),
  "AuditRequestContext.user_agent": texts(["user_agent", "userAgent"], 1_024, true),
  "AuditRequestContext.trace_id": texts(["trace_id", "traceId"], 128, true),
  "AuditRequestContext.request_id": requestIds,
  "AuditRequestContext.session_id": texts(["session_id", "sessionId"], 128, true),

  "AuditFilter.actors": several(["actors", "actors"], 256),
  "AuditFilter.actions": several(["actions", "actions"], 256),
  "AuditFilter.resource_type": texts(["resource_type", "resourceType"], 128, true),
  "AuditFilter.resource_id": [
    ...texts(["resource_id", "resourceId"], 512, true).map((one) => ({
      ...one,
      fields: { resourceType: "memory", ...one.fields },
    })),
    bad("without a type", { resourceId: "7" }, "resource_type"),
  ],
  "AuditFilter.outcomes": [
    bad("101 of them", { outcomes: many(101, () => AuditOutcome.SUCCESS) }, "outcomes"),
    bad("one that is none", { outcomes: [AuditOutcome.DENIED, 4] }, "outcomes[1]"),
    bad("a negative one", { outcomes: [-1] }, "outcomes[0]"),
  ],
  "AuditFilter.statuses": [
    bad("101 of them", { statuses: many(101, () => AuditStatus.PENDING) }, "statuses"),
    bad("UNSPECIFIED", { statuses: [AuditStatus.UNSPECIFIED] }, "statuses[0]"),
    bad("one that is none", { statuses: [AuditStatus.PENDING, 5] }, "statuses[1]"),
  ],
  "ListPending.filter.statuses": [bad("set", { statuses: [AuditStatus.PENDING] }, "statuses")],
  "AuditFilter.services": several(["services", "services"], 128),
  "AuditFilter.producers": several(["producers", "producers"], 129),
  "AuditFilter.trace_id": texts(["trace_id", "traceId"], 128, true),
  "AuditFilter.start_time": times(["start_time", "startTime"]),
  "AuditFilter.end_time": times(["end_time", "endTime"]),
  "AuditFilter.attributes": [
    bad(
      "11 of them",
      { attributes: many(11, (i) => ({ pointer: `/${i}`, ...value("boolValue", true) })) },
      "attributes",
    ),
  ],
  "AuditAttributeMatch.pointer": [
    bad("without a slash", { pointer: "a" }, "pointer"),
    bad("an escape that is none", { pointer: "/a~2" }, "pointer"),
    bad("257 bytes", { pointer: `/${"p".repeat(256)}` }, "pointer"),
    bad("nine levels", { pointer: "/a".repeat(9) }, "pointer"),
    bad("a NUL", { pointer: "/\0" }, "pointer"),
  ],
  "AuditAttributeMatch.value": [
    bad("unset", { value: undefined }, "value"),
    bad("of no kind", { value: {} }, "value"),
    bad("a list", value("listValue", { values: [] }), "value"),
    bad("an object", value("structValue", { fields: {} }), "value"),
  ],

  "Review.id": [...ids, unknownRecord],
  "Review.decision": numbers(["decision", "decision"], AuditDecision).concat(
    bad("unset", { decision: AuditDecision.UNSPECIFIED }, "decision"),
  ),
  "Review.reviewer": texts(["reviewer", "reviewer"], 256),
  "Review.comment": texts(["comment", "comment"], 8_192, true),
  "Review.expected_status": [
    bad("one that cannot be approved", { expectedStatus: AuditStatus.REJECTED }, "expected_status"),
    ...numbers(["expected_status", "expectedStatus"], AuditStatus),
  ],
  "IsApproved.id": ids.map((one) => ({ ...one, fields: { target: { case: "id", value: one.fields.id } } })),
  "IsApproved.subject": [
    bad("unset", { target: { case: undefined } }, "target"),
    bad(
      "a resource of no type",
      { target: { case: "subject", value: { resource: { id: "7" } } } },
      "subject.resource.type",
    ),
    bad(
      "a resource of no id",
      { target: { case: "subject", value: { resource: { type: "m" } } } },
      "subject.resource.id",
    ),
  ],
  "AuditSubject.action": texts(["action", "action"], 256, true),

  "List.order": numbers(["order", "order"], AuditOrder),
  "GetGroup.group": [...groups, unknownGroup],
  "ListDeadLetters.group": [...groups, unknownGroup],
  "RequeueDeadLetters.group": [...groups, unknownGroup],
  "RequeueDeadLetters.record_ids": [
    bad("none", { all: false }, "record_ids"),
    bad("1,001", { all: false, recordIds: many(1_001, (i) => `p/${i + 1}`) }, "record_ids"),
    bad("a bad one", { all: false, recordIds: ["p/1", "p/0"] }, "record_ids[1]"),
    bad("a NUL", { all: false, recordIds: ["\0"] }, "record_ids[0]"),
  ],
  "RequeueDeadLetters.all": [bad("with ids", { all: true, recordIds: ["p/1"] }, "record_ids")],
  "Export.format": numbers(["format", "format"], AuditExportFormat),
  "Export.resume_token": tokens(resumeToken, 4),
  "Reconcile.producer": names(["producer", "producer"]).filter(({ fields }) => fields.producer !== "@a"),
  "Reconcile.first_sequence": [
    bad("2^53", { firstSequence: SAFE + 1n }, "first_sequence"),
    bad("2^64 - 1", { firstSequence: MAX_UINT64 }, "first_sequence"),
  ],
  "Reconcile.last_sequence": [
    bad("2^53", { lastSequence: SAFE + 1n }, "last_sequence"),
    bad("less than the first", { firstSequence: 5n, lastSequence: 4n }, "last_sequence"),
  ],
  "Verify.inclusion": [bad("unset", { check: { case: undefined } }, "check")],
  "AuditInclusionCheck.id": [...ids, unknownRecord],
  "AuditConsistencyCheck.old_tree_size": [bad("0", { oldTreeSize: 0n }, "old_tree_size")],
  "AuditConsistencyCheck.old_root_hash": [31, 33, 2 ** 20].map((length) =>
    bad(`${length} bytes`, { oldRootHash: new Uint8Array(length) }, "old_root_hash"),
  ),
  "AuditConsistencyCheck.new_tree_size": [
    bad("less than the old", { oldTreeSize: 2n, newTreeSize: 1n }, "new_tree_size"),
    bad("more than there is", { newTreeSize: MAX_UINT64 }, "", "OUT_OF_RANGE", "TREE_TOO_SMALL"),
  ],
  "AuditRangeCheck.first_leaf_index": anything,
  "AuditRangeCheck.leaf_count": [
    bad("100,001", { leafCount: 100_001 }, "leaf_count"),
    bad("2^32 - 1", { leafCount: 2 ** 32 - 1 }, "leaf_count"),
  ],

  "AuditIngestOpen.producer": names(["producer", "producer"]),
  "AuditIngestBatch.batch": [0n, 2n, MAX_UINT64].map((batch) => bad(`${batch} for the first`, { batch }, "batch")),
  "AuditIngestBatch.records": [
    bad("none", { records: [] }, "records"),
    bad("1,001", { records: many(1_001, (i) => ({ sequence: BigInt(i + 1), entry })) }, "records"),
  ],
  "AuditSubscribeOpen.consumer": texts(["consumer", "consumer"], 128, true),
  "AuditSubscribeOpen.start": numbers(["start", "start"], AuditStart),
  "AuditSubscribeOpen.max_in_flight": [10_001, 2 ** 32 - 1].map((most) =>
    bad(String(most), { maxInFlight: most }, "max_in_flight"),
  ),
  "AuditSubscribeOpen.ack_timeout": durations("ack_timeout", "ackTimeout", HOURS_12, 1n),
  "AuditSubscribeOpen.max_deliveries": [1_001, 2 ** 32 - 1].map((most) =>
    bad(String(most), { maxDeliveries: most }, "max_deliveries"),
  ),
  "AuditDeliveryNack.delay": durations("delay", "delay", HOURS_12),
  // Cut when it is longer.
  "AuditDeliveryNack.error": anything,
  "AuditDeliveryNack.dead": anything,
};

/** Messages within requests that are fine. */
export const goodAuditParts: Readonly<Record<string, RequestFields>> = {
  AuditAppend: record,
  AuditEntry: entry,
  AuditResource: { type: "memory", id: "7" },
  AuditRequestContext: {},
  AuditFilter: {},
  AuditAttributeMatch: { pointer: "/a", ...value("boolValue", true) },
  AuditSubject: { resource: { type: "memory", id: "7" } },
  AuditInclusionCheck: { id: "good/1" },
  AuditConsistencyCheck: { oldTreeSize: 1n },
  AuditRangeCheck: {},
  AuditIngestOpen: { producer: "good" },
  AuditIngestBatch: { batch: 1n, records: [record] },
  AuditSubscribeOpen: {},
  AuditDeliveryAck: { deliveryIds: ["0.1"] },
  AuditDeliveryNack: { deliveryIds: ["0.1"] },
  AuditDeliveryExtend: { deliveryIds: ["0.1"] },
};

/** A request that is fine, for each RPC, where `prepareAudit` has been. Of the streams, their first message. */
export const goodAuditRequests: Readonly<Record<string, RequestFields>> = {
  "AuditService.Append": { producer: "good", records: [record] },
  "AuditService.Ingest": { message: { case: "open", value: { producer: "good" } } },
  "AuditService.Get": { id: "good/1" },
  "AuditService.List": {},
  "AuditService.ListPending": {},
  "AuditService.Review": { id: "good/1", decision: AuditDecision.APPROVE, reviewer: "user:1" },
  "AuditService.IsApproved": { target: { case: "id", value: "good/1" } },
  "AuditService.Subscribe": { message: { case: "open", value: {} } },
  "AuditService.Tail": {},
  "AuditService.GetGroup": {},
  "AuditService.ListDeadLetters": {},
  "AuditService.RequeueDeadLetters": { all: true },
  "AuditService.Export": {},
  "AuditService.Reconcile": { producer: "good" },
  "AuditService.Checkpoint": {},
  "AuditService.Verify": { check: { case: "inclusion", value: { id: "good/1" } } },
};

/** Makes the record and the group that the good requests ask for. */
export async function prepareAudit(call: (rpc: DescMethod, request: RequestFields) => Promise<Ending>): Promise<void> {
  for (const rpc of [AuditService.method.append, AuditService.method.subscribe]) {
    const { code, message } = await call(rpc, goodAuditRequests[rpcName(rpc)] ?? {});
    if (code !== "OK") throw new Error(`${rpc.name}: ${code} ${message}`);
  }
}
