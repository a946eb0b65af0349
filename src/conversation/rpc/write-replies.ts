import { create } from "@bufbuild/protobuf";
import {
  type ConversationStateServiceAppendMessagesResponse as AppendResponse,
  type ConversationAppended,
  ConversationAppendedSchema,
  ConversationPresence,
  ConversationStateServiceAppendMessagesResponseSchema,
  ConversationStateServiceDeleteResponseSchema,
  ConversationStateServiceExtendTtlResponseSchema,
  ConversationStateServicePatchResponseSchema,
  ConversationStateServiceRestoreResponseSchema,
  ConversationStateServiceSaveResponseSchema,
  type ConversationStateServiceDeleteResponse as DeleteResponse,
  type ConversationStateServiceExtendTtlResponse as ExtendTtlResponse,
  type ConversationStateServiceSaveResponse as SaveResponse,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { EncodedReply } from "../../infra/call.ts";
import type { Appended, Outcome } from "../change/order.ts";
import type { Held } from "../record/conversation.ts";
import { conversationParts, field, messageOf } from "../record/conversation-bytes.ts";
import { presenceFor, summaryOf, timestampOf } from "../record/summary.ts";
import { summaryBytes } from "../record/summary-bytes.ts";
import { conflictBytes, type RefusedWrite } from "./write-conflict.ts";

type OutcomeOf<Kind extends Outcome["kind"]> = Extract<Outcome, { kind: Kind }>;
type Done = OutcomeOf<"done">;

/** Replies that hold a state are put together of bytes: it is never decoded. */

const { conflict: SAVE_CONFLICT } = ConversationStateServiceSaveResponseSchema.field;
const { summary: SUMMARY, state: STATE, conflict: PATCH_CONFLICT } = ConversationStateServicePatchResponseSchema.field;
const { conversation: CONVERSATION } = ConversationStateServiceRestoreResponseSchema.field;

export function saveReply({ held, created, appended }: Done): SaveResponse {
  return create(ConversationStateServiceSaveResponseSchema, {
    summary: summaryOf(held),
    created,
    appended: appended.map(appendedOf),
  });
}

export function saveConflictReply(refused: RefusedWrite): EncodedReply {
  return new EncodedReply(messageOf(field(SAVE_CONFLICT.number, conflictBytes(refused))));
}

export function patchReply({ held, state }: Done, returnState: boolean): EncodedReply {
  const summary = field(SUMMARY.number, summaryBytes(held));
  // A retry that wants more than the first attempt did is answered as that was.
  const parts = returnState && state !== undefined ? [summary, field(STATE.number, state)] : [summary];
  return new EncodedReply(messageOf(...parts));
}

export function patchConflictReply(refused: RefusedWrite): EncodedReply {
  return new EncodedReply(messageOf(field(PATCH_CONFLICT.number, conflictBytes(refused))));
}

export function appendReply({ held, created, appended }: Done): AppendResponse {
  return create(ConversationStateServiceAppendMessagesResponseSchema, {
    appended: appended.map(appendedOf),
    version: BigInt(held.version),
    messageCount: BigInt(held.messageCount),
    ...expireTime(held),
    created,
  });
}

export function deleteReply(outcome: Done | OutcomeOf<"absent">): DeleteResponse {
  if (outcome.kind === "done") {
    const version = BigInt(outcome.held.version);
    return create(ConversationStateServiceDeleteResponseSchema, { presence: ConversationPresence.LIVE, version });
  }
  const { presence, held } = outcome;
  // One that has expired and was not removed yet has no tombstone.
  const hasTombstone = presence !== "never" && held !== undefined && held.presence !== "live";
  return create(ConversationStateServiceDeleteResponseSchema, {
    presence: presenceFor(presence),
    version: hasTombstone ? BigInt(held.version) : 0n,
  });
}

export function extendReply(outcome: Done | OutcomeOf<"absent">): ExtendTtlResponse {
  if (outcome.kind === "absent") {
    const presence = presenceFor(outcome.presence);
    return create(ConversationStateServiceExtendTtlResponseSchema, { presence });
  }
  const presence = ConversationPresence.LIVE;
  return create(ConversationStateServiceExtendTtlResponseSchema, { presence, ...expireTime(outcome.held) });
}

/** What Restore and Fork answer: both have the conversation as their only field. */
export function conversationReply({ held, state }: Done): EncodedReply {
  const parts = conversationParts(summaryBytes(held), stateIn(state));
  return new EncodedReply(messageOf(field(CONVERSATION.number, ...parts)));
}

function appendedOf({ id, position, duplicate }: Appended): ConversationAppended {
  return create(ConversationAppendedSchema, { id, position: BigInt(position), duplicate });
}

function expireTime({ expiresUs }: Held) {
  return expiresUs === undefined ? {} : { expireTime: timestampOf(expiresUs) };
}

function stateIn(state: Uint8Array | undefined): Uint8Array {
  if (state === undefined) throw new Error("a write did not tell the state that it made");
  return state;
}
