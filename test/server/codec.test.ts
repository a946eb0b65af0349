import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { describe, expect, it } from "vitest";
import { ConversationStateServiceAppendMessagesRequestSchema as AppendSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { Malformed, requestDecoder } from "../../src/server/codec.ts";

const SPOILT_ID = Uint8Array.of(0x12, 1, 0xff);
const MESSAGE = new BinaryWriter().tag(3, WireType.LengthDelimited).bytes(new Uint8Array()).finish();

function refusal(messages: number) {
  const decoded = requestDecoder(AppendSchema)(
    Buffer.concat([SPOILT_ID, Buffer.alloc(messages * MESSAGE.length, MESSAGE)]),
  );
  if (!(decoded instanceof Malformed)) throw new Error("was not refused");
  return decoded.failure;
}

describe("a request that cannot be decoded", () => {
  it("is refused with the path of what is wrong", () => {
    expect(refusal(10)).toMatchObject({ reason: "MALFORMED_REQUEST", violations: [{ field: "id" }] });
  });

  it("is not looked through when it holds more messages than may be: that was what is too much", () => {
    const failure = refusal(600_000);
    expect(failure).toMatchObject({ reason: "MALFORMED_REQUEST", violations: [] });
    expect(failure.message).toContain("it holds more than 500000 messages");
  });
});
