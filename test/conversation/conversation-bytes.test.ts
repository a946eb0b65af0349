import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  conversationBytes,
  conversationParts,
  field,
  messageOf,
  numberField,
} from "../../src/conversation/record/conversation-bytes.ts";
import { structOfJson } from "../../src/conversation/record/json.ts";
import {
  ConversationMessageSchema,
  ConversationPresence,
  ConversationSchema,
  ConversationStateServiceGetResponseSchema,
  ConversationSummarySchema,
} from "../../src/gen/holdfast/v1/conversation_pb.js";

const state = { text: "ü".repeat(300), list: [1, { a: null }] };
const summary = create(ConversationSummarySchema, { collection: "conversation", id: "x", version: 5n });
const summaryBytes = toBinary(ConversationSummarySchema, summary);

describe("a conversation that is put together of bytes", () => {
  it("is what the generated code writes", () => {
    const wanted = toBinary(ConversationSchema, create(ConversationSchema, { summary, state }));
    expect(conversationBytes(summaryBytes, structOfJson(state)).equals(wanted)).toBe(true);
  });

  it("has a state when it is empty", () => {
    expect(fromBinary(ConversationSchema, conversationBytes(summaryBytes, new Uint8Array())).state).toEqual({});
  });

  it("may stand in a reply, beside numbers and other fields", () => {
    const messages = [1, 200, 2 ** 40].map((position) => ({
      role: "user",
      content: "hello",
      position: BigInt(position),
    }));
    const body = toBinary(
      ConversationMessageSchema,
      create(ConversationMessageSchema, { role: "user", content: "hello" }),
    );
    const bytes = messageOf(
      numberField(1, ConversationPresence.LIVE),
      field(2, ...conversationParts(summaryBytes, structOfJson(state))),
      ...messages.map(({ position }) => field(3, body, numberField(7, Number(position)))),
      numberField(9, 0),
    );
    const reply = { presence: ConversationPresence.LIVE, conversation: { summary, state }, messages };
    const schema = ConversationStateServiceGetResponseSchema;
    expect(bytes.equals(toBinary(schema, create(schema, reply)))).toBe(true);
  });

  it("may have fields of large numbers", () => {
    const bytes = messageOf(field(2_000, Buffer.from("a")), numberField(2_001, 300));
    expect([...bytes]).toEqual([0x82, 0x7d, 0x01, 0x61, 0x88, 0x7d, 0xac, 0x02]);
  });
});
