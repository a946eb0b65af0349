import { create, toJson } from "@bufbuild/protobuf";
import {
  type ConversationMessage,
  ConversationMessageOrder,
  ConversationMessageSchema,
  ConversationStateService,
} from "../../gen/holdfast/v1/conversation_pb.js";
import type { Api } from "../client/api.ts";
import type { Patience } from "../client/patience.ts";
import { canonicalText } from "./conversation-json.ts";
import type { Prepared } from "./conversation-messages.ts";
import type { Named } from "./conversation-source.ts";

/** Whether a conversation that is there has just these messages, of which there are as many as `count` says. */
export type Comparison = (named: Named, wanted: readonly Prepared[], count: number) => Promise<boolean>;

const { method } = ConversationStateService;

const PAGE = 1000;

export function createComparison({ api, patience }: { readonly api: Api; readonly patience: Patience }): Comparison {
  return async ({ collection, id }, wanted, count) => {
    if (wanted.length !== count) return false;
    const last = wanted.at(-1);
    if (last === undefined) return true;
    // Such an id is made of all that the document says up to there: nothing else needs to be looked at.
    const isTelling = last.tellsAllBefore;
    const order = isTelling ? ConversationMessageOrder.NEWEST_FIRST : ConversationMessageOrder.OLDEST_FIRST;
    let pageToken = "";
    let compared = isTelling ? count - 1 : 0;
    do {
      const request = { collection, id, order, pageSize: isTelling ? 1 : PAGE, pageToken };
      const page = await patience.until(() => api.call(method.listMessages, request));
      for (const message of page.messages) {
        const expected = wanted[compared++];
        // One more than there were a moment ago.
        if (expected === undefined || !isSame(message, expected.message)) return false;
      }
      pageToken = isTelling ? "" : page.nextPageToken;
    } while (pageToken !== "");
    return compared === count;
  };
}

/** Their times apart: the server says when one came that has none of its own. */
function isSame(one: ConversationMessage, other: ConversationMessage): boolean {
  return one.id === other.id && contentOf(one) === contentOf(other);
}

function contentOf({ role, content, parts, metadata }: ConversationMessage): string {
  const message = create(ConversationMessageSchema, { role, content, parts, ...(metadata && { metadata }) });
  return canonicalText(toJson(ConversationMessageSchema, message));
}
