import type { Timestamp } from "@bufbuild/protobuf/wkt";
import {
  type ConversationStateService,
  type ConversationStateServiceListRequest,
  ConversationOrder as Order,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { EncodedReply, type Rpcs } from "../../infra/call.ts";
import { textFault } from "../../infra/fields.ts";
import { readNamedToken, writeNamedToken } from "../../infra/token.ts";
import { field, messageOf } from "../record/conversation-bytes.ts";
import { ConversationFields, LIMITS } from "../record/fields.ts";
import { filterOf, textOfFilter } from "../record/filter.ts";
import { isTime } from "../record/message.ts";
import { summaryBytes, textField } from "../record/summary-bytes.ts";
import type { Listing, ListOrder, ListPage, ListPlace, ListQuery } from "./listing.ts";
import type { Reading } from "./reading.ts";
import type { Truth } from "./truth.ts";

export interface ListRpcOptions {
  readonly reading: Reading;
  readonly listing: Listing;
  readonly truth: Pick<Truth, "layer">;
}

export function createListRpc(options: ListRpcOptions): Required<Pick<Rpcs<typeof ConversationStateService>, "list">> {
  const { reading, listing, truth } = options;
  return {
    async list(request, call) {
      const { query, question } = queryOf(request, reading);
      const page = await listing.page(query);
      reading.note(call, query, { layer: truth.layer, degraded: false });
      return replyOf(page, question);
    },
  };
}

function queryOf(
  request: ConversationStateServiceListRequest,
  reading: Reading,
): { query: ListQuery; question: string } {
  const fields = new ConversationFields();
  const collection = fields.collection("collection", request.collection);
  const filter = filterOf(fields, request.filter);
  const updatedSinceUs = timeOf(fields, "updated_since", request.updatedSince);
  const order = orderOf(fields, request.order);
  const limit = fields.pageSize(request.pageSize);
  const question = `List ${JSON.stringify([collection, order, updatedSinceUs ?? null])} ${textOfFilter(filter)}`;
  const after = placeIn(fields, question, request.pageToken);
  reading.policyOf(fields, { collection });
  return { query: { collection, filter, updatedSinceUs, order, limit, after, nowUs: reading.nowUs }, question };
}

function orderOf(fields: ConversationFields, order: Order): ListOrder {
  if (!(order in Order)) fields.refuse("order", "is not an order that this server knows");
  if (order === Order.OLDEST_FIRST) return "oldest";
  return order === Order.LAST_UPDATED_FIRST ? "updated" : "newest";
}

/** The first microsecond at or after it. */
function timeOf(fields: ConversationFields, name: string, time: Timestamp | undefined): number | undefined {
  if (time === undefined) return undefined;
  if (isTime(time)) {
    const us = Number(time.seconds) * 1_000_000 + Math.ceil(time.nanos / 1000);
    return Math.max(Number.MIN_SAFE_INTEGER, Math.min(us, Number.MAX_SAFE_INTEGER));
  }
  fields.refuse(name, "is not a time from the year 1 to the year 9999");
  return undefined;
}

function placeIn(fields: ConversationFields, question: string, token: string): ListPlace | undefined {
  if (token === "") return undefined;
  const { place, name: id = "" } = readNamedToken(question, token, 1) ?? {};
  const us = place?.[0];
  if (us !== undefined && textFault(id, LIMITS.idBytes) === undefined) return { us, id };
  const same = "the same collection, filter, updated_since and order";
  fields.refuse("page_token", `is not a next_page_token of a listing with ${same}`);
  return undefined;
}

/** The fields of a ListResponse. */
const [CONVERSATION, NEXT_PAGE_TOKEN] = [1, 2];

function replyOf({ rows, next }: ListPage, question: string): EncodedReply {
  const token = next === undefined ? "" : writeNamedToken(question, { place: [next.us], name: next.id });
  const conversations = rows.map((held) => field(CONVERSATION, summaryBytes(held)));
  return new EncodedReply(messageOf(...conversations, textField(NEXT_PAGE_TOKEN, token)));
}
