import { create, type JsonObject, toBinary } from "@bufbuild/protobuf";
import {
  ConversationStateServiceAppendMessagesRequestSchema,
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

/** One message a call, to each of these in turn. */
export function appendMessagesLoad(ids: readonly string[]): Pick<LoadOptions, "bodies"> {
  const schema = ConversationStateServiceAppendMessagesRequestSchema;
  return {
    bodies: ids.map((id) => toBinary(schema, create(schema, { id, messages: [{ role: "user", content: bodyText }] }))),
  };
}
