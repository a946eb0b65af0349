import { create, fromBinary } from "@bufbuild/protobuf";
import {
  AuditConsumerSchema,
  AuditDeadLetterSchema,
  AuditFilterSchema,
  type AuditGroup,
  AuditGroupSchema,
  type AuditService,
  AuditServiceGetGroupResponseSchema,
  AuditServiceListDeadLettersResponseSchema,
  type AuditServiceRequeueDeadLettersRequest,
  AuditServiceRequeueDeadLettersRequestSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { CallContext, Rpcs, ServedBy } from "../../infra/call.ts";
import { invalidField } from "../../infra/failure.ts";
import { Fields } from "../../infra/fields.ts";
import { namedRequest } from "../../infra/named-request.ts";
import { readToken, writeToken } from "../../infra/token.ts";
import { toTimestamp } from "../record/leaf.ts";
import { idOf } from "../record/record.ts";
import { recordIdOf } from "../record/record-id.ts";
import { type DeadLetter, type DeadLetterPlace, type GroupCondition, GroupNotFoundError } from "./groups.ts";
import { type SubscribeOptions, subscribe } from "./subscription.ts";
import { groupOf } from "./subscription-orders.ts";
import { stir } from "./subscription-stream.ts";

export interface GroupRpcsOptions extends Omit<SubscribeOptions, "streams"> {
  /** What the archive is kept in. */
  readonly servedBy: ServedBy;
}

const PAGE_BYTES = 2 * 1024 * 1024;
const MOST_IDS = 1_000;

/** The RPCs of groups of consumers. */
export function createGroupRpcs(
  options: GroupRpcsOptions,
): Required<Pick<Rpcs<typeof AuditService>, "subscribe" | "getGroup" | "listDeadLetters" | "requeueDeadLetters">> {
  const { groups, growth, servedBy } = options;
  const streaming: SubscribeOptions = { ...options, streams: new Map() };

  return {
    subscribe(requests, call) {
      call.servedBy(servedBy);
      return subscribe(requests, call, streaming);
    },

    async getGroup(request, call) {
      const fields = new Fields();
      const name = groupOf(fields, "group", request.group);
      fields.done();
      const condition = await groups.condition(name);
      if (condition === undefined) throw new GroupNotFoundError(name);
      call.servedBy(servedBy);
      return create(AuditServiceGetGroupResponseSchema, { group: groupReply(name, condition) });
    },

    async listDeadLetters(request, call) {
      const fields = new Fields();
      const group = groupOf(fields, "group", request.group);
      const leaves = fields.pageSize(request.pageSize);
      fields.done();
      const after = placeOf(group, request.pageToken);
      const page = await groups.deadLetters(group, after, { leaves, bytes: PAGE_BYTES });
      call.servedBy(servedBy);
      return create(AuditServiceListDeadLettersResponseSchema, {
        deadLetters: page.deadLetters.map(deadLetterReply),
        nextPageToken:
          page.next === undefined ? "" : writeToken(questionOf(group), [page.next.deadMs, page.next.leafIndex]),
      });
    },

    async requeueDeadLetters(request, call) {
      const order = requeueOrderOf(request, call);
      const answer = await groups.requeue(order);
      stir(growth);
      call.servedBy(servedBy);
      return answer;
    },
  };
}

function requeueOrderOf(request: AuditServiceRequeueDeadLettersRequest, call: CallContext) {
  const fields = new Fields();
  const group = groupOf(fields, "group", request.group);
  const { recordIds, all } = request;
  if (!all) fields.count("record_ids", recordIds.length, MOST_IDS);
  else if (recordIds.length > 0) fields.refuse("record_ids", "must be empty when all is set");
  const ids = recordIds.slice(0, MOST_IDS).map((id, at) => idOf(recordIdOf(fields, `record_ids[${at}]`, id)));
  const requestId = fields.requestId(request.requestId);
  fields.done();
  const { typeName } = AuditServiceRequeueDeadLettersRequestSchema;
  return {
    group,
    ids: all ? undefined : [...new Set(ids)],
    caller: call.caller.name,
    named: namedRequest(requestId, typeName, () => [group, String(all), ...ids]),
  };
}

function questionOf(group: string): string {
  return `dead letters of ${group}`;
}

function placeOf(group: string, token: string): DeadLetterPlace | undefined {
  if (token === "") return undefined;
  const [deadMs, leafIndex] = readToken(questionOf(group), token, 2) ?? [];
  if (deadMs === undefined || leafIndex === undefined) {
    throw invalidField("page_token", "is not a token that ListDeadLetters returned for this group");
  }
  return { deadMs, leafIndex };
}

function deadLetterReply({ record, deliveries, lastError, lastConsumer, deadMs }: DeadLetter) {
  const deadTime = toTimestamp(deadMs * 1_000);
  return create(AuditDeadLetterSchema, { record, deliveries, lastError, lastConsumer, deadTime });
}

function groupReply(name: string, condition: GroupCondition): AuditGroup {
  const { oldestUnackedUs } = condition;
  return create(AuditGroupSchema, {
    name,
    filter: fromBinary(AuditFilterSchema, condition.filter),
    lag: BigInt(condition.lag),
    pending: BigInt(condition.pending),
    delayed: BigInt(condition.delayed),
    deadLetters: BigInt(condition.deadLetters),
    ...(oldestUnackedUs === undefined ? {} : { oldestUnackedTime: toTimestamp(oldestUnackedUs) }),
    consumers: condition.consumers.map(({ name: consumer, connected, pending, activeMs }) =>
      create(AuditConsumerSchema, {
        name: consumer,
        connected,
        pending: BigInt(pending),
        ...(activeMs === undefined ? {} : { activeTime: toTimestamp(activeMs * 1_000) }),
      }),
    ),
    createTime: toTimestamp(condition.createdMs * 1_000),
  });
}
