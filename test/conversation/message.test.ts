import { create, fromBinary, fromJson, type JsonObject, toJson } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import type { Message } from "../../src/conversation/record/conversation.ts";
import { ConversationFields } from "../../src/conversation/record/fields.ts";
import { messagesOf } from "../../src/conversation/record/message.ts";
import { type ConversationMessage, ConversationMessageSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { Failure, InvalidFieldsError } from "../../src/infra/failure.ts";

const NOW_US = 1_700_000_000_123_456;
const KIB = 1024;

function message(json: JsonObject): ConversationMessage {
  return fromJson(ConversationMessageSchema, { role: "user", ...json });
}

function take(messages: readonly ConversationMessage[]): readonly Message[] {
  const fields = new ConversationFields();
  const taken = messagesOf(fields, "messages", messages, NOW_US);
  fields.done();
  return taken;
}

function takeOne(json: JsonObject): Message {
  const [one] = take([message(json)]);
  return one ?? raise();
}

function raise(): never {
  throw new Error("there is no message");
}

const stored = ({ body }: Message) => fromBinary(ConversationMessageSchema, Uint8Array.from(body));
const hashOf = (json: JsonObject) => Buffer.from(takeOne(json).contentHash).toString("hex");

function refusal(messages: readonly ConversationMessage[]): unknown {
  try {
    take(messages);
  } catch (error) {
    return error;
  }
  throw new Error("it was taken");
}

describe("a message that is taken", () => {
  it("is kept as it was given, without its place", () => {
    const given = {
      id: "m-1",
      content: "hello",
      parts: [
        { text: "" },
        { toolCall: { id: "t-1", name: "search", arguments: { q: "x", limit: 3, deep: [{ a: null }] } } },
        { toolResult: { callId: "t-1", result: ["a", { b: false }], isError: true } },
        {
          reference: {
            uri: "https://x/y.png",
            mediaType: "image/png",
            sizeBytes: "7",
            name: "y",
            sha256: `${"A".repeat(43)}=`,
          },
        },
        { data: JSON.parse('{"__proto__":{"x":1},"":"empty name"}') },
      ],
      createTime: "0001-01-01T00:00:00Z",
      metadata: { "10": 1, "9": 2 },
    };
    const taken = takeOne({ ...given, position: "17" });
    expect(taken).toMatchObject({ id: "m-1", role: "user" });
    expect(toJson(ConversationMessageSchema, stored(taken))).toEqual({ role: "user", ...given });
  });

  it("is given an id of its own and the time, where it has none", () => {
    const [one, other] = take([message({ content: "a" }), message({ content: "a" })]);
    expect(one?.id).toMatch(/^[0-9a-f-]{36}$/);
    expect(other?.id).not.toBe(one?.id);
    const body = stored(one ?? raise());
    expect(body.id).toBe(one?.id);
    expect(body.createTime).toMatchObject({ seconds: 1_700_000_000n, nanos: 123_456_000 });
  });

  it("keeps what a newer client says beyond what is known here, in itself and in its parts", () => {
    const unknown = { no: 99, wireType: 2, data: Uint8Array.of(2, 0x68, 0x69) };
    const given = message({ content: "x", parts: [{ text: "a" }], position: "3" });
    const [part] = given.parts;
    if (part === undefined) raise();
    part.$unknown = [unknown];
    const [first] = take([given]);
    expect(stored(first ?? raise()).parts[0]?.$unknown).toEqual([unknown]);
    given.$unknown = [unknown];
    given.createTime = create(TimestampSchema, { seconds: 5n });
    const [second] = take([given]);
    expect(stored(second ?? raise())).toMatchObject({
      ...{ content: "x", position: 0n, $unknown: [unknown], createTime: { seconds: 5n } },
    });
    expect(second?.contentHash).not.toEqual(first?.contentHash);
  });

  it("can be read as JSON although a value in it says no kind", () => {
    const given = message({ parts: [{ toolResult: { result: { a: [1] } } }] });
    const [part] = given.parts;
    if (part?.kind.case !== "toolResult" || part.kind.value.result?.kind.case !== "structValue") raise();
    const list = part.kind.value.result.kind.value.fields.a;
    if (list?.kind.case !== "listValue") raise();
    for (const value of list.kind.value.values) value.kind = { case: undefined };
    const [taken] = take([given]);
    expect(toJson(ConversationMessageSchema, stored(taken ?? raise()))).toMatchObject({
      parts: [{ toolResult: { result: { a: [null] } } }],
    });
  });
});

describe("the hash of a message", () => {
  const inside: readonly [string, (json: JsonObject) => JsonObject][] = [
    ["its metadata", (metadata) => ({ content: "x", metadata })],
    ["the arguments of a tool", (json) => ({ parts: [{ toolCall: { name: "t", arguments: json } }] })],
    ["the result of a tool", (result) => ({ parts: [{ toolResult: { result } }] })],
    ["other data", (data) => ({ parts: [{ data }] })],
  ];

  it.each(inside)("is the same however the members are ordered in %s", (_, within) => {
    const one = { b: [{ y: 1, x: 2 }], a: { d: 1, c: null } };
    const other = { a: { c: null, d: 1 }, b: [{ x: 2, y: 1 }] };
    expect(hashOf(within(one))).toBe(hashOf(within(other)));
    expect(hashOf(within({ ...one, b: [{ y: 1, x: 3 }] }))).not.toBe(hashOf(within(one)));
    expect(hashOf(within({ b: [{ y: 1 }, { x: 2 }], a: one.a }))).not.toBe(hashOf(within(one)));
  });

  it("is of what is said: not of what the server adds, nor of the id, the place or the time", () => {
    const given = { content: "x", metadata: { a: 1 } };
    const hash = hashOf(given);
    expect(hash).toHaveLength(32);
    expect(hashOf({ ...given, createTime: "2023-11-14T22:13:20.123456Z" })).toBe(hash);
    expect(hashOf({ content: "x", createTime: "2023-11-14T22:13:20.123456Z" })).toBe(hashOf({ content: "x" }));
    expect(hashOf({ ...given, id: "m-1" })).toBe(hash);
    expect(hashOf({ ...given, position: "9" })).toBe(hash);
  });

  it("is another one for whatever else differs", () => {
    const contents: JsonObject[] = [
      { content: "x" },
      { content: "y" },
      { content: "x", role: "assistant" },
      { content: "x", metadata: {} },
      { content: "x", metadata: { a: 1 } },
      { content: "x", metadata: { a: "1" } },
      { content: "x", metadata: { a: null } },
      { content: "x", parts: [{ text: "x" }] },
      { content: "x", parts: [{ data: {} }] },
      { content: "x", parts: [{ data: { a: 1 } }] },
      { content: "x", parts: [{ data: {} }], metadata: { a: 1 } },
      { content: "x", parts: [{ toolCall: { name: "a" } }] },
      { content: "x", parts: [{ toolCall: { name: "a", arguments: {} } }] },
      { content: "x", parts: [{ toolResult: { callId: "a" } }] },
      { content: "x", parts: [{ toolResult: { callId: "a", result: null } }] },
      { content: "x", parts: [{ toolResult: { callId: "a", result: "null" } }] },
      { content: "x", parts: [{ toolResult: { callId: "a", result: {} } }] },
    ];
    expect(new Set(contents.map(hashOf)).size).toBe(contents.length);
  });
});

/** JSON of so many levels: objects with lists in them, and so on. */
function nested(levels: number): JsonObject {
  return { a: levels === 1 ? 1 : levels === 2 ? [] : [nested(levels - 2)] };
}

describe("a message that is wrong", () => {
  const part = (json: JsonObject): JsonObject => ({ parts: [{ text: "" }, json] });
  const cases: readonly [string, JsonObject][] = [
    ["id", { content: "x", id: "i".repeat(129) }],
    ["id", { content: "x", id: "a\0b" }],
    ["role", { content: "x", role: "" }],
    ["role", { content: "x", role: "r".repeat(65) }],
    ["content", {}],
    ["parts", { parts: Array.from({ length: 101 }, () => ({ text: "x" })) }],
    ["parts[1]", part({})],
    ["parts[1].tool_call.id", part({ toolCall: { name: "n", id: "i".repeat(129) } })],
    ["parts[1].tool_call.name", part({ toolCall: {} })],
    ["parts[1].tool_call.name", part({ toolCall: { name: "n".repeat(257) } })],
    ["parts[1].tool_call.arguments.a[0]", part({ toolCall: { name: "n", arguments: { a: ["\ud800"] } } })],
    ["parts[1].tool_result.call_id", part({ toolResult: { callId: "i".repeat(129) } })],
    ["parts[1].tool_result.result", part({ toolResult: { result: { "\ud800": 1 } } })],
    ["parts[1].reference.uri", part({ reference: {} })],
    ["parts[1].reference.uri", part({ reference: { uri: "u".repeat(4097) } })],
    ["parts[1].reference.uri", part({ reference: { uri: "DATA:text/plain,x" } })],
    ["parts[1].reference.media_type", part({ reference: { uri: "u", mediaType: "m".repeat(129) } })],
    ["parts[1].reference.name", part({ reference: { uri: "u", name: "n".repeat(257) } })],
    ["parts[1].reference.sha256", part({ reference: { uri: "u", sha256: "AAAA" } })],
    [`parts[1].data${".a[0]".repeat(15)}`, part({ data: nested(31) })],
    ["metadata.a", { content: "x", metadata: { a: "\udc00" } }],
  ];
  it.each(cases)("is refused by the name of its field: %s", (field, json) => {
    const bad = message(json);
    const error = refusal([message({ content: "good" }), bad]);
    expect(error).toBeInstanceOf(InvalidFieldsError);
    expect(error).toMatchObject({ violations: [{ field: `messages[1].${field}` }] });
  });

  it("is told of every field that is wrong, in every message", () => {
    const error = refusal([message({ role: "", id: "\0" }), message({}), message({ content: "x" })]);
    const fields = error instanceof InvalidFieldsError ? error.violations.map(({ field }) => field) : [];
    expect(fields).toEqual(["messages[0].id", "messages[0].role", "messages[0].content", "messages[1].content"]);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])("is refused for the number %s, which JSON has not", (number) => {
    const metadata = create(ConversationMessageSchema, { role: "user", content: "x", metadata: { a: [number] } });
    expect(refusal([metadata])).toMatchObject({ violations: [{ field: "messages[0].metadata.a[0]" }] });
  });

  it.each([
    { seconds: -62_135_596_801n, nanos: 0 },
    { seconds: 253_402_300_800n, nanos: 0 },
    { seconds: 0n, nanos: -1 },
    { seconds: 0n, nanos: 1_000_000_000 },
  ])("is refused for a time that is none: $seconds s, $nanos ns", (createTime) => {
    const bad = create(ConversationMessageSchema, { role: "user", content: "x", createTime });
    expect(refusal([bad])).toMatchObject({ violations: [{ field: "messages[0].create_time" }] });
  });

  it("is refused when its id comes twice in a request; without ids, anything may", () => {
    const twice = [message({ id: "a", content: "x" }), message({ content: "x" }), message({ id: "a", content: "y" })];
    expect(refusal(twice)).toMatchObject({ violations: [{ field: "messages[2].id" }] });
  });
});

describe("what is as large as it may be", () => {
  const limit = 256 * KIB;
  // Role and content each have a tag, and a length of one and three bytes.
  const largest = limit - 6 - 4;

  it("is taken: a message of 256 KiB, and 1,000 messages, and nested 30 levels", () => {
    expect(takeOne({ content: "x".repeat(largest) }).body.length).toBeGreaterThan(limit);
    expect(take(Array.from({ length: 1000 }, () => message({ content: "x" })))).toHaveLength(1000);
    takeOne({ content: "x", metadata: nested(30) });
  });

  const tooLarge: readonly [string, string, string, () => ConversationMessage[]][] = [
    ["a byte more", "MESSAGE_TOO_LARGE", "messages[0]", () => [message({ content: "x".repeat(largest + 1) })]],
    ["1,001", "TOO_MANY_MESSAGES", "messages", () => Array.from({ length: 1001 }, () => message({ content: "x" }))],
    [
      "more than 4 MiB",
      "TOO_MANY_MESSAGES",
      "messages",
      () => Array.from({ length: 17 }, () => message({ content: "x".repeat(largest) })),
    ],
  ];
  it.each(tooLarge)("is the limit: %s is refused as too large", (_, reason, field, messages) => {
    const error = refusal(messages());
    expect(error).toBeInstanceOf(Failure);
    expect(error).toMatchObject({ kind: "too_large", reason, metadata: { field } });
  });
});
