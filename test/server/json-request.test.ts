import { describe, expect, it } from "vitest";
import { ConversationStateServiceSaveRequestSchema as SaveSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { createJsonDecoder } from "../../src/server/json-request.ts";

const decoder = createJsonDecoder(SaveSchema);
const read = (text: string) => decoder.decode(Buffer.from(text));
const lists = (levels: number, innermost = "") => `${"[".repeat(levels)}${innermost}${"]".repeat(levels)}`;

describe("a request in JSON", () => {
  it.each<[string, string, string]>([
    ['{"state":{"context":{"items":[1,NaN]}}}', "state.context.items[1]", "NaN"],
    ['{"state":[]}', "state", "is [], wanted an object"],
    ['{"messages":[{"role":"u"},{"role":5}]}', "messages[1].role", "is 5, wanted a text"],
    ['{"messages":[{"role":"u","metadata":"x"}]}', "messages[0].metadata", 'is "x", wanted an object'],
    [
      String.raw`{"messages":[{"parts":[{"text":"\ud800"}]}]}`,
      "messages[0].parts[0].text",
      "is not text: it has half a surrogate pair",
    ],
    [`{"state":{"a":1,"b":{"c d":${lists(31)}}}}`, `state.b["c d"]${"[0]".repeat(30)}`, "nests more than 32 levels"],
    [`{"state":{"a":1,"b":{"c d":${lists(500)}}}}`, `state.b["c d"]${"[0]".repeat(30)}`, "nests more than 32 levels"],
  ])("is refused by the path of what is wrong: %.60s", (text, field, description) => {
    expect(() => read(text)).toThrow(
      expect.objectContaining({
        reason: "MALFORMED_REQUEST",
        violations: [{ field, description: expect.stringContaining(description) }],
      }),
    );
  });

  it.each([
    `{"state":{"a":${lists(31, "1")}}}`,
    '{"state":null,"id":null}',
    '{"messages":[{"role":"u","metadata":{}}]}',
  ])("is left as it is when nothing is wrong, or others say what is: %.60s", (text) => {
    expect(read(text)).toBe(text);
  });
});
