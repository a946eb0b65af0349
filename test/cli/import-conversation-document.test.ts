import { create, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { type DocumentRules, documentOf, isOwnCopy } from "../../src/cli/import/conversation-document.ts";
import { exactText, parseExactly, Unfit } from "../../src/cli/import/conversation-json.ts";
import { batchesOf, expiryOf, isAfter } from "../../src/cli/import/conversation-requests.ts";
import { ConversationMessageSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";

const rules = { largeIntegersAsText: false, anyLayout: false };
const documentIn = (text: string, more: Partial<DocumentRules> = {}) =>
  documentOf(parseExactly(text), { ...rules, ...more });
const messagesIn = (...messages: unknown[]) =>
  documentIn(JSON.stringify({ messages })).messages.map(({ message }) => message);

function unfit(act: () => unknown): { reason: string; message: string } {
  try {
    act();
  } catch (error) {
    if (error instanceof Unfit) return { reason: error.reason, message: error.message };
    throw error;
  }
  throw new Error("it was taken");
}

function nested(levels: number, innermost = ""): string {
  return `${"[".repeat(levels)}${innermost}${"]".repeat(levels)}`;
}

const DOCUMENT = {
  user_id: "u-1",
  messages: [
    { role: "user", content: "hello", timestamp: "2024-01-02T03:04:05.123456" },
    { role: "assistant", content: "hi", timestamp: 1_704_164_646 },
  ],
  context: { topic: "x", deep: [1, null, { a: true }] },
  complexity_level: "low",
  confidence_score: 0.75,
  status: "active",
  created_at: "2024-01-02T03:04:05",
  updated_at: "2024-01-02T03:05:00",
  _metadata: { case_id: "c-1", updated_at: "2024-01-02T03:06:00", version: 3 },
};

describe("a document of the old system", () => {
  it("becomes a state without messages and metadata, and messages with their times", () => {
    const { messages: _, _metadata, ...state } = DOCUMENT;
    const made = documentIn(JSON.stringify(DOCUMENT));
    expect(made.state).toEqual(state);
    expect(made.messages.map(({ message }) => [message.role, message.content, message.createTime?.seconds])).toEqual([
      ["user", "hello", 1_704_164_645n],
      ["assistant", "hi", 1_704_164_646n],
    ]);
    expect(made.messages[0]?.message.createTime?.nanos).toBe(123_456_000);
    expect(made.updated).toEqual({ seconds: 1_704_164_760n, nanos: 0 });
  });

  it("of any layout is one where the user says so, as long as it is an object", () => {
    const text = '{"colour": 1, "size": {"x": 2}}';
    expect(documentIn(text, { anyLayout: true })).toMatchObject({ state: JSON.parse(text), messages: [] });
    expect(documentIn("{}", { anyLayout: true }).state).toEqual({});
    expect(unfit(() => documentIn("[1]", { anyLayout: true })).message).toBe("is a list; wanted an object");
    const unsaid = unfit(() => documentIn(text)).message;
    expect(unsaid).toMatch(/it has colour, size, and none of _metadata, messages, .*--collection conversation/);
  });

  it("keeps in its state what _metadata says and nothing else does: the last change, and what is not always there", () => {
    const about = { case_id: "c", updated_at: "2024-01-02T03:04:05", version: 3, source: "app", n: [1] };
    const stateIn = (document: object) => documentIn(JSON.stringify(document)).state;
    expect(stateIn({ status: "x", _metadata: about })).toEqual({
      ...{ status: "x", updated_at: about.updated_at, imported_metadata: { source: "app", n: [1] } },
    });
    const own = { status: "x", updated_at: "2023-01-01", created_at: "2022-01-01" };
    expect(stateIn({ ...own, _metadata: { case_id: "c", updated_at: about.updated_at, version: 1 } })).toEqual(own);
    expect(stateIn({ status: "x", _metadata: [1] })).toEqual({ status: "x", imported_metadata: [1] });
    expect(stateIn({ status: "x", _metadata: null })).toEqual({ status: "x" });
  });

  it("of an orchestration has no messages, and is a state alone", () => {
    const text = '{"user_id": "u", "started_at": "2024-01-01", "flow_type": "f", "status": "s", "created_at": "x"}';
    expect(documentIn(text)).toMatchObject({ messages: [], state: JSON.parse(text), updated: undefined });
  });

  it("without _metadata was changed when it says so itself, else nobody knows", () => {
    expect(documentIn('{"status": "a", "updated_at": "2024-01-02T03:04:05Z"}').updated?.seconds).toBe(1_704_164_645n);
    expect(documentIn('{"status": "a", "_metadata": {"updated_at": "lately"}}').updated).toBeUndefined();
  });

  it.each([
    ["UNKNOWN_LAYOUT", "is a list", "[]"],
    ["UNKNOWN_LAYOUT", "is a text", '"text"'],
    ["UNKNOWN_LAYOUT", "it has colour, size, and none of _metadata", '{"colour": 1, "size": 2}'],
    ["UNKNOWN_LAYOUT", "messages is an object with 1", '{"messages": {"1": "x"}}'],
    ["UNKNOWN_LAYOUT", "messages[0] is a text; wanted {role, content, timestamp}", '{"messages": ["x"]}'],
    ["UNKNOWN_LAYOUT", "messages[0].role is missing; it is an object with content", '{"messages": [{"content": "x"}]}'],
    ["UNKNOWN_LAYOUT", "messages[0].content is a number", '{"messages": [{"role": "u", "content": 5}]}'],
    ["UNKNOWN_LAYOUT", "messages[0].content[0] is a list", '{"messages": [{"role": "u", "content": [[1]]}]}'],
    ["NUMBER_TOO_LARGE", "n is a number beyond the range", '{"status": "x", "n": 1e999}'],
    ["NUMBER_TOO_LARGE", "a[0].n is 12345678901234567890, ", '{"status": "x", "a": [{"n": 12345678901234567890}]}'],
    ["NOT_TEXT", "status has half a surrogate pair", '{"status": "x\\ud800"}'],
    ["NOT_TEXT", "half a surrogate pair in its name", '{"status": "x", "a": {"b\\ud800": 1}}'],
    ["NESTED_TOO_DEEP", "deeper than 30 levels", `{"status": ${nested(30)}}`],
    ["NESTED_TOO_DEEP", "deeper than 30 levels", `{"status": ${nested(50_000)}}`],
    ["NESTED_TOO_DEEP", "is nested too deep", `{"status": ${nested(50_000, "12345678901234567890")}}`],
    ["STATE_TOO_LARGE", "it holds more than 16384 values", `{"status": "s", "list": [${"0,".repeat(16_383)}0]}`],
    ["STATE_TOO_LARGE", "without its messages it takes 5000", `{"status": "${"x".repeat(5_000_000)}"}`],
    [
      "MESSAGE_TOO_LARGE",
      "messages[0] takes 3000",
      `{"messages": [{"role": "u", "content": "${"x".repeat(300_000)}"}]}`,
    ],
    ["TOO_MANY_MESSAGES", "has 1000001 messages", `{"messages": [${"0,".repeat(1_000_000)}0]}`],
    ["NOT_JSON", "is empty", ""],
    ["NOT_JSON", "is empty", "  "],
    ["NOT_JSON", 'begins with "gASVKgAAAA"', "gASVKgAAAA"],
    ["NOT_JSON", "or is torn off; it ends with", '{"status": "x", "messages": ['],
    ["NOT_A_NUMBER", "holds NaN", '{"a": "NaN \\" NaN", "score": NaN}'],
    ["NOT_A_NUMBER", "holds -Infinity", '{"a": [1, -Infinity]}'],
  ])("is refused with the reason and the place: %s, %s", (reason, message, text) => {
    const refused = unfit(() => documentIn(text));
    expect(refused.reason).toBe(reason);
    expect(refused.message).toContain(message);
    expect(refused.message.length).toBeLessThan(500);
  });

  it("may be nested as deep as the contract allows", () => {
    expect(documentIn(`{"status": ${nested(29)}}`).messages).toEqual([]);
  });

  it("keeps names and integers that JavaScript has its own ideas about", () => {
    const text =
      '{"status": "x", "__proto__": {"a": 1}, "constructor": 2, "n": 9007199254740992, "f": 0.12345678901234568}';
    const { state } = documentIn(text);
    expect(Object.keys(state)).toEqual(["status", "__proto__", "constructor", "n", "f"]);
    expect(state.n).toBe(9_007_199_254_740_992);
  });

  it("has its large integers as text where the user wants that", () => {
    const text = '{"status": "x", "n": 12345678901234567890, "list": [-9007199254740993, 1]}';
    const { state } = documentIn(text, { largeIntegersAsText: true });
    expect(state).toEqual({ status: "x", n: "12345678901234567890", list: ["-9007199254740993", 1] });
    expect(JSON.parse(exactText(parseExactly(text)))).toEqual(JSON.parse(text));
    expect(exactText(parseExactly(text))).toContain('"n":12345678901234567890');
  });
});

describe("a message of the old system", () => {
  it("keeps what has no place of its own in its metadata", () => {
    const [message] = messagesIn({ role: "u", content: "x", tokens: 5, timestamp: "soon", metadata: { a: 1 } });
    expect(message?.metadata).toEqual({ tokens: 5, timestamp: "soon", a: 1 });
    expect(message?.createTime).toBeUndefined();
    const [other] = messagesIn({ role: "u", content: "x", a: 1, metadata: { a: 2 } });
    expect(other?.metadata).toEqual({ a: 1, metadata: { a: 2 } });
  });

  it("that says nothing, or says it in parts, has parts", () => {
    const partsOf = (content: unknown) => messagesIn({ role: "u", content })[0]?.parts.map(({ kind }) => kind);
    for (const nothing of ["", null, []]) expect(partsOf(nothing)).toEqual([{ case: "text", value: "" }]);
    const thought = { type: "thinking", thinking: "hm", signature: "s" };
    expect(partsOf(["a", { type: "text", text: "b" }, thought])).toEqual([
      { case: "text", value: "a" },
      { case: "text", value: "b" },
      { case: "data", value: thought },
    ]);
    expect(partsOf({ answer: 42 })).toEqual([{ case: "data", value: { answer: 42 } }]);
  });

  it("has its time whatever it is written in, as long as it is one", () => {
    const times = ["2024-01-02T03:04:05Z", "2024-01-02T04:04:05+01:00", 1_704_164_645, "1704164645000", 1704164645.5];
    const seconds = messagesIn(...times.map((timestamp) => ({ role: "u", content: "x", timestamp }))).map(
      ({ createTime }) => createTime?.seconds,
    );
    expect(new Set(seconds)).toEqual(new Set([1_704_164_645n]));
    // More nanoseconds than a double can count.
    expect(documentIn('{"messages": [{"role": "u", "content": "x", "timestamp": 1704164645123456789}]}')).toMatchObject(
      { messages: [{ message: { createTime: { seconds: 1_704_164_645n, nanos: 123_456_789 } } }] },
    );
  });

  it("has the same id at each import, made of what it says and of all before it", () => {
    const ids = (...contents: string[]) =>
      messagesIn(...contents.map((content) => ({ role: "u", content }))).map(({ id }) => id);
    const [a, b, c] = ids("a", "b", "b");
    expect(ids("a", "b", "b", "d").slice(0, 3)).toEqual([a, b, c]);
    expect(new Set([a, b, c]).size).toBe(3);
    expect(ids("a", "x", "b")[0]).toBe(a);
    expect(ids("a", "x", "b")).not.toContain(c);
    const [one] = messagesIn({ role: "u", content: "x", extra: { p: 1, q: 2 } });
    const [other] = messagesIn({ extra: { q: 2, p: 1 }, content: "x", role: "u" });
    expect(one?.id).toBe(other?.id);
  });

  it("has the same id at each import although it holds a number that a double cannot hold", () => {
    const text = '{"messages": [{"id": 12345678901234567890, "role": "u", "content": "x", "n": 98765432109876543210}]}';
    const [message] = documentIn(text, { largeIntegersAsText: true }).messages.map((prepared) => prepared.message);
    // What stands for such a number while it is read is another one in each process.
    expect(message?.id).toBe("import-1-75cc1695b7bbfd3ea62236d5");
    expect(message?.metadata).toEqual({ id: "12345678901234567890", n: "98765432109876543210" });
    expect(unfit(() => documentIn(text)).reason).toBe("NUMBER_TOO_LARGE");
  });

  it("keeps an id of its own that can be one, the first time it comes", () => {
    const messages = messagesIn(
      { id: "m", role: "u", content: "1" },
      { id: "m", role: "u", content: "2" },
      { id: 3, role: "u", content: "3" },
      { id: "x".repeat(200), role: "u", content: "4" },
      { id: "", role: "u", content: "5" },
    );
    expect(messages[0]?.id).toBe("m");
    expect(messages[0]?.metadata).toBeUndefined();
    expect(messages.slice(1).map(({ id }) => id.startsWith("import-"))).toEqual([true, true, true, true]);
    expect(messages.slice(1).map(({ metadata }) => metadata?.id)).toEqual(["m", 3, "x".repeat(200), ""]);
  });
});

describe("copies that the server keeps for old programs", () => {
  it.each([
    ['{"status": "x", "_metadata": {"case_id": "c", "holdfast": true}}', true],
    // Written again by such a program, from a copy that lacked messages.
    ['{"messages": [], "_metadata": {"case_id": "c", "messages_omitted": 5}}', true],
    ['{"status": "x", "holdfast": true, "_metadata": {"case_id": "c"}}', false],
    ['{"status": "x"}', false],
    ["[]", false],
  ])("are told from documents: %s", (text, isOwn) => {
    expect(isOwnCopy(parseExactly(text))).toBe(isOwn);
  });
});

describe("a request", () => {
  it("holds as many messages as it may, and all are sent in their order", () => {
    const contents = [
      ...Array.from({ length: 2500 }, () => "x"),
      ...Array.from({ length: 20 }, () => "y".repeat(250_000)),
    ];
    const { messages } = documentIn(JSON.stringify({ messages: contents.map((content) => ({ role: "u", content })) }));
    const batches = batchesOf(messages);
    expect(batches.flat()).toEqual(messages.map(({ message }) => message));
    for (const batch of batches) {
      expect(batch.length).toBeLessThanOrEqual(1000);
      const bytes = batch.map(
        (message) => toBinary(ConversationMessageSchema, create(ConversationMessageSchema, message)).length,
      );
      expect(bytes.reduce((sum, one) => sum + one, 0)).toBeLessThan(4 * 1024 * 1024);
    }
    expect(batchesOf([])).toEqual([]);
  });

  it("carries no more values than a request may, and each message though it holds more", () => {
    const holding = (values: number) => ({ role: "u", content: "x", list: Array.from({ length: values }, () => null) });
    const counts = [...Array.from({ length: 100 }, () => 500), 20_000, 20_000, 1];
    const { messages } = documentIn(JSON.stringify({ messages: counts.map(holding) }));
    const batches = batchesOf(messages);
    expect(batches.flat()).toEqual(messages.map(({ message }) => message));
    for (const batch of batches.filter(({ length }) => length > 1)) {
      const values = batch.map(({ metadata }) => (Array.isArray(metadata?.list) ? metadata.list.length : 0));
      expect(values.reduce((sum, one) => sum + one, 0)).toBeLessThan(16_384);
    }
    expect(batches.slice(-3).map(({ length }) => length)).toEqual([1, 1, 1]);
    expect(batches.length).toBeLessThan(10);
  });

  it("carries the time that is left, and slides", () => {
    expect(expiryOf(undefined)).toBeUndefined();
    expect(expiryOf("never")?.kind).toEqual({ case: "never", value: true });
    const { kind } = expiryOf({ endsAtMs: performance.now() + 3_600_000 }) ?? {};
    if (kind?.case !== "ttl") throw new Error("it has no ttl");
    expect(Number(kind.value.seconds)).toBeGreaterThan(3590);
    expect(Number(kind.value.seconds)).toBeLessThanOrEqual(3600);
    const { kind: over } = expiryOf({ endsAtMs: performance.now() - 5000 }) ?? {};
    expect(over).toEqual({ case: "ttl", value: { seconds: 0n, nanos: 1_000_000 } });
  });

  it("knows which change is later, and says no where it is not known", () => {
    const at = (seconds: bigint, nanos = 0) => ({ seconds, nanos });
    expect(isAfter(at(2n), at(1n, 5))).toBe(true);
    expect(isAfter(at(1n, 6), at(1n, 5))).toBe(true);
    expect(isAfter(at(1n), at(1n))).toBe(false);
    expect(isAfter(undefined, at(1n))).toBe(false);
  });
});
