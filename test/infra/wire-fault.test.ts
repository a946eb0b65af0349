import { create, fromBinary, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  ConversationStateServiceAppendMessagesRequestSchema as AppendSchema,
  ConversationMessageSchema,
  ConversationPartSchema,
  ConversationStateServiceSaveRequestSchema as SaveSchema,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import { wireFault } from "../../src/infra/wire-fault.ts";

const MARK = "spoil this text";

/** A request with a text somewhere in it, of which one byte was made one that is no text. */
function spoilt(init: JsonObject): Uint8Array {
  const bytes = Buffer.from(
    toBinary(AppendSchema, create(AppendSchema, init as Parameters<typeof create<typeof AppendSchema>>[1])),
  );
  const at = bytes.indexOf(MARK);
  if (at < 0) throw new Error("there is no text to spoil");
  bytes[at] = 0xff;
  return bytes;
}

const message = (init: JsonObject) => ({ role: "user", ...init });
const part = (kind: JsonObject) => message({ parts: [{ kind: { case: "text", value: "x" } }, { kind }] });

describe("bytes that are no such message", () => {
  it.each<[string, JsonObject]>([
    ["id", { id: MARK }],
    ["messages[1].role", { messages: [message({}), message({ role: MARK })] }],
    ["messages[0].metadata.a.b[1]", { messages: [message({ metadata: { a: { b: ["x", MARK] } } })] }],
    ['messages[0].metadata["a key"]', { messages: [message({ metadata: { x: 1, "a key": MARK } })] }],
    ["messages[0].metadata", { messages: [message({ metadata: { [MARK]: 1 } })] }],
    ["messages[0].parts[1].text", { messages: [part({ case: "text", value: MARK })] }],
    ["messages[0].parts[1].data.a", { messages: [part({ case: "data", value: { a: MARK } })] }],
    ["patch.context.items[3]", { patch: { context: { items: [0, 1, 2, MARK] } } }],
  ])("are told by the path of what is wrong: %s", (path, init) => {
    const bytes = spoilt(init);
    expect(() => fromBinary(AppendSchema, bytes)).toThrow();
    const fault = wireFault(AppendSchema, bytes);
    expect(fault?.description).toMatch(/not valid UTF-8 text$/);
    // A name that is no text stands in the path with marks in place of its bytes.
    if (path.endsWith("metadata")) expect(fault?.field).toMatch(/^messages\[0\]\.metadata\["\ufffd/);
    else expect(fault?.field).toBe(path);
  });

  it("are told by the path of what is nested too deep", () => {
    let bytes = new Uint8Array();
    for (let level = 0; level < 200; level++) {
      const value = new BinaryWriter().tag(5, WireType.LengthDelimited).bytes(bytes).finish();
      const entry = new BinaryWriter().tag(1, WireType.LengthDelimited).string("in");
      bytes = new BinaryWriter()
        .tag(1, WireType.LengthDelimited)
        .bytes(entry.tag(2, WireType.LengthDelimited).bytes(value).finish())
        .finish();
    }
    const data = new BinaryWriter()
      .tag(ConversationPartSchema.field.data.number, WireType.LengthDelimited)
      .bytes(bytes);
    const text = new BinaryWriter()
      .tag(ConversationMessageSchema.field.parts.number, WireType.LengthDelimited)
      .bytes(data.finish());
    const fault = wireFault(ConversationMessageSchema, text.finish());
    expect(fault?.field).toMatch(/^parts\[0\]\.data(\.in){40,}$/);
    expect(fault?.description).toMatch(/nested deeper/);
  });

  it.each<[string, readonly number[], string]>([
    ["cut short", [0x12, 0x7f, 0x61], "id"],
    ["ten bytes", [0x20, ...Array<number>(20).fill(0xff)], "expected_version"],
    ["number 0", [0x02, 0x01, 0x61], ""],
    ["wire type", [0x17, 0x01], "id"],
    ["wire type", [0x13, 0x01], "id"],
    ["cut short", [0xa1, 0x06, 0x01], ""],
    ["cut short", [0x2a, 0x03, 0x0a, 0x7f, 0x61], "expiry.ttl"],
  ])("are told by what is wrong: %s, %j", (what, bytes, path) => {
    const fault = wireFault(SaveSchema, Uint8Array.from(bytes));
    expect(fault).toEqual({ field: path, description: expect.stringContaining(what) });
  });

  it("are told by something whenever the decoder refuses them, and nothing is said of what was written by the generated code", () => {
    const whole = create(AppendSchema, {
      id: "c",
      create: true,
      expectedVersion: 2n ** 64n - 1n,
      messages: [
        {
          role: "user",
          content: "ü",
          metadata: { a: [1, { b: null }], c: "x" },
          createTime: { seconds: -5n, nanos: 7 },
        },
        { role: "tool", parts: [{ kind: { case: "toolCall", value: { name: "t", arguments: { q: true } } } }] },
      ],
      patch: { a: { b: ["c"] } },
    });
    const bytes = toBinary(AppendSchema, whole);
    expect(wireFault(AppendSchema, bytes)).toBeUndefined();
    const changes = fc.array(fc.tuple(fc.nat({ max: bytes.length - 1 }), fc.nat({ max: 255 })), {
      minLength: 1,
      maxLength: 3,
    });
    fc.assert(
      fc.property(changes, (made) => {
        const changed = Uint8Array.from(bytes);
        for (const [at, to] of made) changed[at] = to;
        if (isRefused(changed)) expect(wireFault(AppendSchema, changed)?.description).toMatch(/./);
      }),
      { numRuns: 10_000 },
    );
  });
});

it("is not looked for behind very many fields, which would hold up everyone else", () => {
  const role = Uint8Array.of(0x12, 1, 0xff);
  const many = (count: number) => {
    const field = new BinaryWriter().tag(3, WireType.LengthDelimited).bytes(new Uint8Array()).finish();
    return Buffer.concat([...Array.from({ length: count }, () => field), role]);
  };
  expect(wireFault(AppendSchema, many(1_000))?.field).toBe("id");
  expect(wireFault(AppendSchema, many(1_000_000))).toBeUndefined();
});

function isRefused(bytes: Uint8Array): boolean {
  try {
    fromBinary(AppendSchema, bytes);
    return false;
  } catch {
    return true;
  }
}
