import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { complaints } from "../support/bad-caller.ts";
import { postJson } from "../support/bad-json.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";

let server: HoldfastProcess;
beforeAll(async () => {
  server = await startHoldfast();
});
afterAll(() => server[Symbol.asyncDispose]());

const post = (rpc: string, body: string) => postJson(server.httpUrl, `ConversationStateService/${rpc}`, body);
const save = (rest: string) => `{"id":"c",${rest}}`;
const state = (value: string) => save(`"state":{"k":${value}}`);
const message = (rest: string) => `{"id":"c","create":true,"messages":[{"role":"user",${rest}}]}`;
const part = (rest: string) => message(`"parts":[${rest}]`);
const lists = (levels: number) => "[".repeat(levels) + "]".repeat(levels);

describe("JSON about conversations that is no request", () => {
  const malformed: readonly [string, string, string, RegExp][] = [
    ["a state of a list", "Save", save('"state":[]'), /state|Struct/],
    ["a state of a text", "Save", save('"state":"x"'), /state|Struct/],
    ["a state of a number", "Save", save('"state":1'), /state|Struct/],
    ["a patch of a list", "Patch", save('"patch":[]'), /patch|Struct/],
    ["a number for an id", "Get", '{"id":7}', /id/],
    ["a list for a collection", "Get", '{"id":"c","collection":[]}', /collection/],
    ["half a surrogate pair for an id", "Get", String.raw`{"id":"\ud800"}`, /id/],
    ["a version of 2^64", "Save", save('"state":{},"expectedVersion":"18446744073709551616"'), /expected_version/],
    ["a version below zero", "Get", '{"id":"c","version":-1}', /version/],
    ["a fraction of a version", "Restore", '{"id":"c","version":1.5}', /version/],
    ["last messages in words", "Get", '{"id":"c","lastMessages":"some"}', /last_messages/],
    ["a place below zero", "ListMessages", '{"id":"c","afterPosition":"-1"}', /after_position/],
    ["an object for messages", "AppendMessages", '{"id":"c","messages":{}}', /messages/],
    ["null for a message", "AppendMessages", '{"id":"c","messages":[null]}', /messages/],
    ["a text for a message", "AppendMessages", '{"id":"c","messages":["hi"]}', /ConversationMessage/],
    ["a number for what is said", "AppendMessages", message('"content":7'), /content/],
    ["a part of two kinds", "AppendMessages", part('{"text":"x","data":{}}'), /kind|oneof/],
    ["data of a list", "AppendMessages", part('{"data":[]}'), /data|Struct/],
    ["a hash that is not base64", "AppendMessages", part('{"reference":{"uri":"x","sha256":"%%%"}}'), /sha256/],
    ["half a surrogate pair in what is said", "AppendMessages", message(String.raw`"content":"\udc00"`), /content/],
    ["an order that is none", "List", '{"order":"CONVERSATION_ORDER_BEST_FIRST"}', /ConversationOrder/],
    ["a mode that is none", "ExtendTtl", '{"id":"c","expiry":{"mode":"MODE_SOMETIMES"}}', /Mode/],
    ["two kinds of an expiry", "ExtendTtl", '{"id":"c","expiry":{"ttl":"5s","never":true}}', /kind|oneof/],
    ["a flag in words", "Fork", '{"id":"c","version":true}', /version/],
    ["millions of messages", "AppendMessages", `{"id":"c","messages":[${"{},".repeat(2_000_000)}{}]}`, /500000/],
  ];
  it.each(malformed)("is refused with a message that says what is wrong: %s", async (_, rpc, body, said) => {
    const answer = await post(rpc, body);
    expect(answer).toMatchObject({ status: 400, code: "invalid_argument" });
    expect(answer.reasons).toContain("MALFORMED_REQUEST");
    expect(answer.message).toMatch(said);
    expect(answer.message).not.toMatch(/at .*\.(js|ts)/);
  });

  it.each([
    ["a field misspelt", "Save", save('"sate":{}'), "sate", /did you mean state\?/],
    ["a field of a message", "AppendMessages", message('"text":"x"'), "messages[0].text", /not a field/],
    [
      "a field of a call",
      "AppendMessages",
      part('{"toolCall":{"nam":"x"}}'),
      "messages[0].parts[0].tool_call.nam",
      /name/,
    ],
    ["minutes", "ExtendTtl", '{"id":"c","expiry":{"ttl":"5m"}}', "expiry.ttl", /"5m".*"300s"/],
    [
      "a mode without its beginning",
      "ExtendTtl",
      '{"id":"c","expiry":{"mode":"SLIDING"}}',
      "expiry.mode",
      /MODE_SLIDING/,
    ],
    ["a version in words", "Save", save('"state":{},"expectedVersion":"abc"'), "expected_version", /whole number/],
    ["a text for an expiry", "ExtendTtl", '{"id":"c","expiry":"1h"}', "expiry", /ttl, never, mode/],
    ["a text for a list", "List", '{"filter":{"statuses":"active"}}', "filter.statuses", /a list/],
    ["a flag in words", "Save", save('"state":{},"returnConflict":"yes"'), "return_conflict", /true or false/],
    ["null for a message", "AppendMessages", '{"id":"c","messages":[null]}', "messages[0]", /null/],
    ["a name twice", "Save", state('{"a":1,"a":2}'), "state.k.a", /twice/],
    ["a time in words", "List", '{"updatedSince":"yesterday"}', "updated_since", /"yesterday".*such as/],
    ["__proto__ of a request", "Save", '{"__proto__":{"id":"c"}}', "__proto__", /not a field/],
  ])("names the field and what is wanted: %s", async (_, rpc, body, field, said) => {
    const answer = await post(rpc, body);
    expect(answer).toMatchObject({ status: 400, fields: [field] });
    expect(answer.reasons).toContain("MALFORMED_REQUEST");
    expect(answer.message).toMatch(said);
  });
});

describe("JSON of bad values of conversations", () => {
  it.each([
    ["no id", "Get", "{}", "id"],
    ["a NUL", "Get", String.raw`{"id":"\u0000"}`, "id"],
    ["a collection with a slash", "Exists", '{"id":"c","collection":"a/b"}', "collection"],
    ["no state", "Save", '{"id":"c"}', "state"],
    ["a state of null", "Save", save('"state":null'), "state"],
    ["messages in a state", "Save", save('"state":{"messages":[]}'), "state.messages"],
    ["a number beyond all doubles", "Save", state("1e400"), "state.k"],
    ["31 levels", "Save", state(lists(30)), `state.k${"[0]".repeat(29)}`],
    ["10,000 levels", "Save", state(lists(10_000)), `state.k${"[0]".repeat(29)}`],
    [
      "1,000 objects in each other",
      "Patch",
      save(`"patch":${'{"a":'.repeat(1_000)}1${"}".repeat(1_000)}`),
      `patch${".a".repeat(30)}`,
    ],
    ["half a surrogate pair in a value", "Save", state(String.raw`"\ud800"`), "state.k"],
    ["half a surrogate pair in a patch", "Patch", save(String.raw`"patch":{"a":["\udc00"]}`), "patch.a[0]"],
    ["no patch", "Patch", '{"id":"c"}', "patch"],
    ["a version of 0", "Delete", '{"id":"c","expectedVersion":"0"}', "expected_version"],
    ["never: false", "ExtendTtl", '{"id":"c","expiry":{"never":false}}', "expiry.never"],
    ["a negative ttl", "ExtendTtl", '{"id":"c","expiry":{"ttl":"-5s"}}', "expiry.ttl"],
    ["no messages", "AppendMessages", '{"id":"c"}', "messages"],
    ["a message of nothing", "AppendMessages", message('"content":""'), "messages[0].content"],
    ["a part of nothing", "AppendMessages", part("{}"), "messages[0].parts[0]"],
    ["a call of no tool", "AppendMessages", part('{"toolCall":{}}'), "messages[0].parts[0].tool_call.name"],
    [
      "metadata of 31 levels",
      "AppendMessages",
      message(`"content":"x","metadata":{"k":${lists(30)}}`),
      `messages[0].metadata.k${"[0]".repeat(29)}`,
    ],
    [
      "a result beyond all doubles",
      "AppendMessages",
      part('{"toolResult":{"result":-1e999}}'),
      "messages[0].parts[0].tool_result.result",
    ],
    [
      "data in a reference",
      "AppendMessages",
      part('{"reference":{"uri":"data:,x"}}'),
      "messages[0].parts[0].reference.uri",
    ],
    ["a page token of nonsense", "ListMessages", '{"id":"c","pageToken":"nonsense"}', "page_token"],
    ["a negative page size", "ListVersions", '{"id":"c","pageSize":-1}', "page_size"],
    ["no version", "Restore", '{"id":"c"}', "version"],
    ["a target with a space", "Fork", '{"id":"c","targetCollection":"a b"}', "target_collection"],
    ["a limit below zero", "Cleanup", '{"limit":-1}', "limit"],
    ["a NUL in a status", "List", String.raw`{"filter":{"statuses":["\u0000"]}}`, "filter.statuses[0]"],
  ])("names the field: %s", async (_, rpc, body, field) => {
    const answer = await post(rpc, body);
    expect(answer).toMatchObject({ status: 400, code: "invalid_argument", fields: [field] });
    expect(answer.reasons).toContain("FIELD_INVALID");
    expect(answer.message).toContain(field);
  });

  it.each([
    ["a state of 5 MiB", "Save", state(`"${"x".repeat(5 << 20)}"`), "STATE_TOO_LARGE"],
    ["a state of a million members", "Save", state(`[${"0,".repeat(480_000)}0]`), "STATE_TOO_LARGE"],
    ["a message of 256 KiB", "AppendMessages", message(`"content":"${"x".repeat(256 * 1024)}"`), "MESSAGE_TOO_LARGE"],
    [
      "1,001 messages",
      "AppendMessages",
      `{"id":"c","messages":[${'{"role":"u","content":"x"},'.repeat(1_000)}{}]}`,
      "TOO_MANY_MESSAGES",
    ],
  ])("says what is over its limit: %s", async (_, rpc, body, reason) => {
    expect(await post(rpc, body)).toMatchObject({ status: 429, code: "resource_exhausted", reasons: [reason] });
  });

  it.each([
    ["names that objects have", '{"__proto__":{"x":1},"constructor":"c","toString":null,"":[],"a":{"__proto__":2}}'],
    ["numbers of every size", "[0,1.5,-9007199254740991,9007199254740991,1e308,5e-324,0.1]"],
    ["a null, a truth and a lie", "[null,true,false]"],
    ["characters of every kind", JSON.stringify('\0\u2028\u{1f600}\ufeff\ufffd"\\/')],
    ["30 levels", lists(29)],
  ])("keeps what is odd and allowed, in a state and in a message: %s", async (_, value) => {
    expect(await post("Save", state(value))).toMatchObject({ status: 200 });
    const data = `{"k":${value}}`;
    const appended = await post("AppendMessages", part(`{"data":${data}},{"toolResult":{"result":${value}}}`));
    expect(appended).toMatchObject({ status: 200 });
    const read = JSON.parse((await post("Get", '{"id":"c","lastMessages":1}')).text);
    const sent = JSON.stringify(JSON.parse(data));
    expect(JSON.stringify(read.conversation.state)).toBe(sent);
    const [one, other] = read.messages[0].parts;
    expect(JSON.stringify(one.data)).toBe(sent);
    expect(JSON.stringify({ k: other.toolResult.result })).toBe(sent);
  });
});

it("none of it is an error of the server, which serves on", async () => {
  expect(await post("Save", '{"id":"last","state":{}}')).toMatchObject({ status: 200 });
  expect(complaints(server.output())).toEqual([]);
});
