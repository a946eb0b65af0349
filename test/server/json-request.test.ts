import { type DescField, type DescMessage, fromJsonString } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AuditServiceListRequestSchema as AuditListSchema } from "../../src/gen/holdfast/v1/audit_pb.js";
import { CacheServiceIncrementRequestSchema as IncrementSchema } from "../../src/gen/holdfast/v1/cache_pb.js";
import {
  ConversationStateServiceListRequestSchema as ListSchema,
  ConversationStateServiceSaveRequestSchema as SaveSchema,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import { createJsonDecoder } from "../../src/server/json-request.ts";

const decoder = createJsonDecoder(SaveSchema);
const read = (text: string) => decoder.decode(Buffer.from(text));
/** What may stand anywhere, and seldom belongs there. */
const ODD: readonly unknown[] = [
  ...[null, true, "true", 0, 1, -1, 1.5, 1e300, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 63, 2 ** 64, [], {}, [null], "", "x"],
  ...[
    "5",
    " 5",
    "5.0",
    "1e2",
    "0x10",
    "+5",
    "-0",
    "NaN",
    "Infinity",
    "-1",
    "9223372036854775808",
    "18446744073709551616",
  ],
  ...["AA==", "AA", "A", "A===", "__", "%", "5s", "-0.5s", "5m", "1.0000000001s", "315576000001s", "\ud800"],
  ...["2030-01-31T12:00:00Z", "2030-02-31T12:00:00.5+02:00", "2030-01-31T25:00:00Z", "0000-01-01T00:00:00Z"],
  ...["MODE_FIXED", "FIXED", "CONVERSATION_ORDER_RECENTLY_UPDATED", "AUDIT_OUTCOME_SUCCESS"],
];

function anyOf<T>(some: readonly T[], gen: fc.GeneratorValue): T | undefined {
  return some[gen(fc.nat, some.length - 1)];
}

function jsonFor(desc: DescMessage, gen: fc.GeneratorValue, level: number): unknown {
  const fields = [1, 2, 3].flatMap(() => anyOf(desc.fields, gen) ?? []);
  return Object.fromEntries(
    fields.map((field) => {
      const name = gen(fc.boolean) ? field.name : field.jsonName;
      const isOdd = gen(fc.integer, { min: 0, max: 3 }) === 0;
      return [name, isOdd ? anyOf(ODD, gen) : valueFor(field, gen, level)];
    }),
  );
}

function valueFor({ fieldKind, message }: DescField, gen: fc.GeneratorValue, level: number): unknown {
  const isInside = message !== undefined && !message.typeName.startsWith("google.") && level < 3;
  const one = () => (isInside ? jsonFor(message, gen, level + 1) : anyOf(ODD, gen));
  return fieldKind === "list" ? [one(), one()] : one();
}

/** Now and then with a name twice. */
function textOf(json: unknown, gen: fc.GeneratorValue): string {
  const text = JSON.stringify(json);
  const again = anyOf(["", "", "", '{"id":"x",', '{"collection":"",'], gen) ?? "";
  return again === "" || text === "{}" ? text : again + text.slice(1);
}

function isRefused(read: () => unknown): boolean {
  try {
    read();
    return false;
  } catch {
    return true;
  }
}

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
    ['{"id":"a","state":{},"id":"b"}', "id", "is there twice in its object"],
    ['{"state":{"a":{"b":[1,{"c":1,"\\u0063":2}]}}}', "state.a.b[1].c", "is there twice in its object"],
    [
      '{"expectedVersion":"1","expected_version":"1"}',
      "expected_version",
      "twice, as expectedVersion and as expected_ver",
    ],
    ['{"expectedVersion":"abc"}', "expected_version", 'is "abc", wanted a whole number from 0 to 18446744073709551615'],
    ['{"expectedVersion":-1}', "expected_version", "is -1, wanted a whole number from 0"],
    ['{"returnConflict":"yes"}', "return_conflict", 'is "yes", wanted true or false'],
    ['{"expiry":"1h"}', "expiry", 'is "1h", wanted an object: a ConversationExpiry of ttl, never, mode'],
    ['{"expiry":{"never":{}}}', "expiry.never", "is {}, wanted true or false"],
    ['{"expiry":{"ttl":"5s","never":true}}', "expiry.never", "is there beside ttl: oneof kind takes one"],
    ['{"expiry":{"ttl":"400000000000s"}}', "expiry.ttl", "wanted at most 315576000000s"],
    [
      '{"expiry":{"mode":"SLIDING"}}',
      "expiry.mode",
      "no Mode; did you mean MODE_SLIDING? There are MODE_SLIDING, MODE_FIXED",
    ],
    ['{"expiry":{"mode":"MODE_FIXT"}}', "expiry.mode", "did you mean MODE_FIXED?"],
    ['{"expiry":{"mode":"x"}}', "expiry.mode", 'is "x", which is no Mode; there are MODE_SLIDING, MODE_FIXED'],
    ['{"messages":{}}', "messages", "is {}, wanted a list"],
    ['{"messages":[null]}', "messages[0]", "must not be null"],
    ['{"messages":["hi"]}', "messages[0]", 'is "hi", wanted an object: a ConversationMessage of id, role'],
    ['{"messages":[{"createTime":"2030-13-01T00:00:00Z"}]}', "messages[0].create_time", "wanted a time such as"],
    ['{"messages":[{"parts":[{"reference":{"sha256":"%"}}]}]}', "messages[0].parts[0].reference.sha256", "base64"],
    [`{"id":${lists(50_000)}}`, "id", "is lists or objects far too deep in each other, wanted a text"],
  ])("is refused by the path of what is wrong: %.60s", (text, field, description) => {
    expect(() => read(text)).toThrow(
      expect.objectContaining({
        reason: "MALFORMED_REQUEST",
        violations: [{ field, description: expect.stringContaining(description) }],
      }),
    );
  });

  it.each([31, 32, 500, 50_000])("is refused as a state in binary is when it nests %i levels", (levels) => {
    const field = `state.b["c d"]${"[0]".repeat(28)}`;
    expect(() => read(`{"state":{"a":1,"b":{"c d":${lists(levels - 2)}}}}`)).toThrow(
      expect.objectContaining({
        reason: "FIELD_INVALID",
        violations: [{ field, description: "nests more than 30 levels" }],
      }),
    );
  });

  it.each<[string, number, string]>([
    ['{"state":{"a":["x","\ufffd",{"b":"?', 0xc3, "state.a[2].b"],
    ['\ufeff{"state":{"a":"\ufffd', 0xff, "state.a"],
    ['{"state":{"a":{"n', 0xe2, "state.a"],
  ])("is refused by the path of bytes that are not UTF-8: %s", (before, byte, field) => {
    const bytes = Buffer.concat([Buffer.from(before), Buffer.from([byte]), Buffer.from('":1}}')]);
    expect(() => decoder.decode(bytes)).toThrow(
      expect.objectContaining({
        reason: "MALFORMED_REQUEST",
        violations: [{ field, description: "is not text: it has bytes that are not UTF-8" }],
      }),
    );
  });

  it.each(["[]", '"x"', "null", "5"])("is refused by its type when it is no object: %s", (text) => {
    expect(() => read(text)).toThrow(
      expect.objectContaining({
        message: expect.stringMatching(
          /^the request is not a valid holdfast.v1.ConversationStateServiceSaveRequest: is .*, wanted an object/,
        ),
        violations: [],
      }),
    );
  });

  it("is told twenty of many faults", () => {
    expect(() => read(`{"messages":[${"1,".repeat(1_000)}1]}`)).toThrow(
      expect.objectContaining({ violations: expect.objectContaining({ length: 20 }) }),
    );
  });

  it("is refused exactly when the library behind this refuses it, which names no path", () => {
    fc.assert(
      fc.property(fc.constantFrom(SaveSchema, ListSchema, IncrementSchema, AuditListSchema), fc.gen(), (desc, gen) => {
        const text = textOf(jsonFor(desc, gen, 0), gen);
        expect(
          isRefused(() => createJsonDecoder(desc).decode(Buffer.from(text))),
          text,
        ).toBe(isRefused(() => fromJsonString(desc, text)));
      }),
      { numRuns: 4_000 },
    );
  });

  it.each([
    `{"state":{"a":${lists(29, "1")}}}`,
    '{"state":null,"id":null}',
    '{"messages":[{"role":"u","metadata":{}}]}',
  ])("is left as it is when nothing is wrong, or others say what is: %.60s", (text) => {
    expect(read(text)).toBe(text);
  });
});
