import { create, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { ConversationFields } from "../../src/conversation/record/fields.ts";
import { messagesOf } from "../../src/conversation/record/message.ts";
import { valueFrom } from "../../src/conversation/record/message-json.ts";
import { MOST_VALUES } from "../../src/conversation/record/struct-values.ts";
import {
  type ConversationMessage,
  ConversationMessageSchema,
  type ConversationPart,
  ConversationPartSchema,
} from "../../src/gen/holdfast/v1/conversation_pb.js";

function take(messages: readonly ConversationMessage[]): number {
  const fields = new ConversationFields();
  const taken = messagesOf(fields, "messages", messages, 0);
  fields.done();
  return taken.length;
}

/** An object of so many values. */
const holding = (values: number): JsonObject => ({ list: Array.from({ length: values - 1 }, () => null) });

const part = (kind: ConversationPart["kind"]): ConversationPart => create(ConversationPartSchema, { kind });
const said = (parts: ConversationPart[], metadata?: JsonObject): ConversationMessage =>
  create(ConversationMessageSchema, { role: "user", content: "x", parts, ...(metadata && { metadata }) });

/** Messages that hold so many parts and values in one place. */
const places: readonly [string, (values: number) => ConversationMessage][] = [
  ["metadata", (values) => said([], holding(values))],
  ["data", (values) => said([part({ case: "data", value: holding(values - 1) })])],
  [
    "arguments",
    (values) => {
      const { kind } = create(ConversationPartSchema, { kind: { case: "toolCall", value: { name: "t" } } });
      if (kind.case !== "toolCall") throw new Error("it is no call");
      return said([part({ ...kind, value: { ...kind.value, arguments: holding(values - 1) } })]);
    },
  ],
  [
    "a result",
    (values) => {
      const result: JsonValue[] = Array.from({ length: values - 1 }, () => null);
      const { kind } = create(ConversationPartSchema, { kind: { case: "toolResult", value: {} } });
      if (kind.case !== "toolResult") throw new Error("it is no result");
      return said([part({ ...kind, value: { ...kind.value, result: valueFrom(result) } })]);
    },
  ],
];

describe("the JSON in messages", () => {
  it.each(places)("may hold so many values in a message and no more: %s", (_, holds) => {
    expect(take([holds(MOST_VALUES)])).toBe(1);
    expect(() => take([said([]), holds(MOST_VALUES + 1)])).toThrow(
      expect.objectContaining({
        kind: "too_large",
        reason: "MESSAGE_TOO_LARGE",
        message: expect.stringMatching(/^messages\[1\]: holds more than 16384 values/),
        metadata: { field: "messages[1]", values_limit: "16384" },
      }),
    );
  });

  it("may hold so many in a request and no more, with the parts of its messages", () => {
    const hundred = said(Array.from({ length: 100 }, () => part({ case: "text", value: "" })));
    const others = Array.from({ length: 9 }, () => hundred);
    expect(take([...others, said([], holding(MOST_VALUES - 900))])).toBe(10);
    expect(() => take([...others, said([], holding(MOST_VALUES - 899))])).toThrow(
      expect.objectContaining({
        kind: "too_large",
        reason: "TOO_MANY_MESSAGES",
        metadata: { field: "messages", values_limit: "16384" },
      }),
    );
  });
});
