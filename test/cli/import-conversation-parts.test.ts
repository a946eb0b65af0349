import { type JsonValue, toJson } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { documentOf } from "../../src/cli/import/conversation-document.ts";
import { parseExactly } from "../../src/cli/import/conversation-json.ts";
import { ConversationMessageSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";

/** What becomes of a message, but for its id. */
function imported(message: object | string): JsonValue {
  const text = typeof message === "string" ? message : JSON.stringify(message);
  const rules = { largeIntegersAsText: false, anyLayout: false };
  const { messages } = documentOf(parseExactly(`{"messages": [${text}]}`), rules);
  const [made] = messages.map((prepared) => toJson(ConversationMessageSchema, prepared.message));
  if (typeof made !== "object" || made === null || Array.isArray(made)) throw new Error("it became no message");
  const { id: _, ...rest } = made;
  return rest;
}

const call = (id: string, name: string, args: string) => ({
  id,
  type: "function",
  function: { name, arguments: args },
});

describe("a message in the layout of a model API", () => {
  it("calls tools by parts, behind its text", () => {
    const calls = [call("c-1", "look", '{"at": {"x": 1}}'), call("c-2", "stop", "")];
    expect(imported({ role: "assistant", content: "Let me see.", tool_calls: calls })).toEqual({
      role: "assistant",
      content: "Let me see.",
      parts: [
        { toolCall: { id: "c-1", name: "look", arguments: { at: { x: 1 } } } },
        { toolCall: { id: "c-2", name: "stop" } },
      ],
    });
    expect(imported({ role: "assistant", content: null, tool_calls: [calls[1]] })).toEqual({
      role: "assistant",
      parts: [{ toolCall: { id: "c-2", name: "stop" } }],
    });
    expect(imported({ role: "assistant", function_call: { name: "look", arguments: "{}" } })).toEqual({
      role: "assistant",
      parts: [{ toolCall: { name: "look", arguments: {} } }],
    });
  });

  it.each([
    ["arguments that are no JSON", call("c", "look", '{"at": ')],
    ["arguments that are no object", call("c", "look", "[1]")],
    ["arguments that a double cannot hold", call("c", "look", '{"n": 12345678901234567890}')],
    ["no name", { id: "c", type: "function", function: { arguments: "{}" } }],
    ["a name too long", call("c", "x".repeat(300), "{}")],
    ["an id too long", call("x".repeat(200), "look", "{}")],
    ["an id that is a number", { ...call("", "look", "{}"), id: 5 }],
    ["another type", { id: "c", type: "custom", custom: { name: "look", input: "x" } }],
  ])("keeps a call with %s whole, as data", (_, odd) => {
    expect(imported({ role: "assistant", tool_calls: [odd] })).toEqual({ role: "assistant", parts: [{ data: odd }] });
  });

  it("keeps in its metadata what parts have no room for, by the part's place", () => {
    const odd = { ...call("c", "look", "{}"), index: 0, function: { name: "look", arguments: "{}", strict: true } };
    const content = [
      { type: "text", text: "a" },
      { type: "text", text: "b", cache_control: { type: "ephemeral" } },
    ];
    expect(imported({ role: "assistant", content, tool_calls: [odd], refusal: null, name: "ada" })).toEqual({
      role: "assistant",
      parts: [{ text: "a" }, { text: "b" }, { toolCall: { id: "c", name: "look", arguments: {} } }],
      metadata: {
        ...{ refusal: null, name: "ada" },
        rest_of_parts: { 1: { cache_control: { type: "ephemeral" } }, 2: { index: 0, function: { strict: true } } },
      },
    });
  });

  it("keeps what are no calls in its metadata", () => {
    expect(imported({ role: "assistant", content: "x", tool_calls: ["y"], function_call: "auto" })).toEqual({
      ...{ role: "assistant", content: "x", metadata: { tool_calls: ["y"], function_call: "auto" } },
    });
    expect(imported({ role: "assistant", content: "x", tool_calls: null })).toEqual({
      ...{ role: "assistant", content: "x", metadata: { tool_calls: null } },
    });
  });

  it.each([
    ["a text", "42"],
    ["an object", { n: [1, null] }],
    ["a list", [{ type: "text", text: "42" }]],
    ["null", null],
  ])("answers a call with %s", (_, content) => {
    expect(imported({ role: "tool", tool_call_id: "c-1", name: "look", content })).toEqual({
      ...{ role: "tool", metadata: { name: "look" } },
      parts: [{ toolResult: { callId: "c-1", result: content } }],
    });
  });

  it("answers a call that had no id, and is no answer in another role", () => {
    expect(imported({ role: "function", name: "look", content: "42" })).toEqual({
      ...{ role: "function", metadata: { name: "look" }, parts: [{ toolResult: { result: "42" } }] },
    });
    expect(imported({ role: "user", tool_call_id: "c", content: "42" })).toEqual({
      ...{ role: "user", content: "42", metadata: { tool_call_id: "c" } },
    });
    expect(imported({ role: "tool", content: "42" })).toEqual({ role: "tool", content: "42" });
  });

  it("uses tools in its content", () => {
    const content = [
      { type: "tool_use", id: "t-1", name: "look", input: { at: 1 } },
      { type: "tool_result", tool_use_id: "t-1", content: [{ type: "text", text: "a dog" }], is_error: true },
      { type: "tool_result", tool_use_id: "t-2", cache_control: { type: "ephemeral" } },
    ];
    expect(imported({ role: "user", content })).toEqual({
      role: "user",
      parts: [
        { toolCall: { id: "t-1", name: "look", arguments: { at: 1 } } },
        { toolResult: { callId: "t-1", isError: true, result: [{ type: "text", text: "a dog" }] } },
        { toolResult: { callId: "t-2" } },
      ],
      metadata: { rest_of_parts: { 2: { cache_control: { type: "ephemeral" } } } },
    });
  });

  const url = "https://example.com/1.png";

  it.each([
    [{ type: "image_url", image_url: { url } }, { uri: url, mediaType: "image/*" }, undefined],
    [
      { type: "image_url", image_url: { url, detail: "low" } },
      { uri: url, mediaType: "image/*" },
      { image_url: { detail: "low" } },
    ],
    [{ type: "input_image", image_url: url, detail: "low" }, { uri: url, mediaType: "image/*" }, { detail: "low" }],
    [{ type: "image", source: { type: "url", url } }, { uri: url, mediaType: "image/*" }, undefined],
    [
      { type: "document", source: { type: "url", url, media_type: "application/pdf" }, title: "T" },
      { uri: url, mediaType: "application/pdf" },
      { title: "T" },
    ],
  ])("refers to what is kept elsewhere: %j", (part, reference, rest) => {
    expect(imported({ role: "user", content: [part] })).toEqual({
      ...{ role: "user", parts: [{ reference }], ...(rest && { metadata: { rest_of_parts: { 0: rest } } }) },
    });
  });

  it.each([
    { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
    { type: "image_url", image_url: { url: `https://example.com/${"x".repeat(5000)}` } },
    { type: "image_url", image_url: { url: "" } },
    { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } },
    { type: "file", file: { file_id: "f" } },
    { type: "input_audio", input_audio: { data: "AAAA", format: "wav" } },
    { type: "tool_use", id: "t", name: "look", input: [1] },
    { type: "tool_result", tool_use_id: 5 },
    { type: "text", text: 5 },
    { answer: 42 },
  ])("keeps whole, as data, what no part is for: %j", (part) => {
    expect(imported({ role: "user", content: [part] })).toEqual({ role: "user", parts: [{ data: part }] });
  });
});
