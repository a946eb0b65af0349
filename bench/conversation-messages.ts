import { create, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  ConversationPresence,
  ConversationStateServiceAppendMessagesRequestSchema,
  ConversationStateServiceGetRequestSchema,
  ConversationStateServiceGetResponseSchema,
  ConversationStateServiceSaveRequestSchema,
} from "../src/gen/holdfast/v1/conversation_pb.js";
import type { LoadOptions } from "./h2-load.ts";

/** The messages of calls about conversations: states of 4 KB, messages of 200 bytes. */
export const CONVERSATIONS = 1_000;
const STATE_BYTES = 4_096;
const TURN_BYTES = 200;

export const conversationId = (number: number) => `conversation-${String(number % CONVERSATIONS).padStart(6, "0")}`;

/** What an agent would keep: some facts and some text. */
export function stateAt(number: number): JsonObject {
  const note = `what step ${number} found, in the words of the model that took it: `;
  return {
    user_id: `user-${number % 50}`,
    status: number % 3 === 0 ? "waiting" : "running",
    confidence_score: (number % 100) / 100,
    plan: { step: number % 7, done: ["read", "think", "ask"], retries: 0 },
    notes: note.repeat(Math.ceil(STATE_BYTES / note.length)).slice(0, STATE_BYTES - 256),
  };
}

export const bodyText = "someone says something to somebody, who listens. ".repeat(5).slice(0, TURN_BYTES);

export function saveLoad(): Pick<LoadOptions, "bodies"> {
  const schema = ConversationStateServiceSaveRequestSchema;
  return {
    bodies: Array.from({ length: CONVERSATIONS }, (_, number) =>
      toBinary(schema, create(schema, { id: conversationId(number), state: stateAt(number) })),
    ),
  };
}

export function getConversationLoad(): Pick<LoadOptions, "bodies"> {
  const schema = ConversationStateServiceGetRequestSchema;
  return {
    bodies: Array.from({ length: CONVERSATIONS }, (_, number) =>
      toBinary(schema, create(schema, { id: conversationId(number) })),
    ),
  };
}

/** What a Get of one of them answers. */
export function conversationReply() {
  return create(ConversationStateServiceGetResponseSchema, {
    presence: ConversationPresence.LIVE,
    conversation: {
      summary: {
        ...{ collection: "conversation", id: conversationId(0), version: 1_795_000_000_000_000n, userId: "user-0" },
        ...{ status: "running", confidenceScore: 0.5, stateBytes: 4_096n, sliding: true },
        createTime: timestampFromMs(1_795_000_000_000),
        updateTime: timestampFromMs(1_795_000_000_000),
        expireTime: timestampFromMs(1_795_086_400_000),
      },
      state: stateAt(0),
    },
  });
}

/** One message a call, to each of these in turn. */
export function appendMessagesLoad(ids: readonly string[]): Pick<LoadOptions, "bodies"> {
  const schema = ConversationStateServiceAppendMessagesRequestSchema;
  return {
    bodies: ids.map((id) => toBinary(schema, create(schema, { id, messages: [{ role: "user", content: bodyText }] }))),
  };
}
