import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { jsonBytesOf, jsonTextOf, structOfJson, structOfJsonText } from "../../src/conversation/record/json.ts";
import { anyObject, decodedStruct, encodedStruct } from "./struct-arbitrary.ts";

const large = {
  list: Array.from({ length: 2_000 }, (_, i) => ({ [`key ${i}`]: [i, `${i}`, null, i % 2 === 0] })),
  "a long text": `${"ü".repeat(50_000)}"${"\u0001".repeat(5_000)}`,
};

describe("JSON as a struct", () => {
  it("has the bytes that the generated code writes", () => {
    fc.assert(
      fc.property(anyObject, (value) => {
        expect(structOfJson(value).equals(encodedStruct(value))).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });

  it("may be larger than what was written before, and smaller after that", () => {
    const small = { a: "b" };
    for (const value of [small, large, small]) {
      expect(structOfJson(value).equals(encodedStruct(value))).toBe(true);
    }
  });

  it("is not changed by what is written later", () => {
    const first = structOfJson({ first: "x".repeat(100) });
    structOfJson({ other: "y".repeat(100) });
    expect(decodedStruct(first)).toEqual({ first: "x".repeat(100) });
  });

  it("is refused when it nests without end, and the next is written as ever", () => {
    const [objects, lists] = [
      ['{"a":', "}"],
      ["[", "]"],
    ] as const;
    for (const [open, close] of [objects, lists]) {
      const text = `{"a":${open.repeat(3_000)}1${close.repeat(3_000)}}`;
      expect(() => structOfJsonText(text)).toThrow("nests more than 200 levels");
    }
    expect(decodedStruct(structOfJson({ a: 1 }))).toEqual({ a: 1 });
  });

  it("is read from its text", () => {
    expect(decodedStruct(structOfJsonText(' {"a": [1, {"b": "\\u00fc"}], "__proto__": 5}'))).toEqual(
      JSON.parse('{"a":[1,{"b":"ü"}],"__proto__":5}'),
    );
  });

  it.each(["", "{", "null", "[]", '"text"', "1", '{"a":NaN}'])("is not read from %j", (text) => {
    expect(() => structOfJsonText(text)).toThrow(SyntaxError);
  });
});

describe("a struct as JSON", () => {
  it("has the text that JSON.stringify writes", () => {
    fc.assert(
      fc.property(anyObject, (value) => {
        expect(jsonTextOf(structOfJson(value))).toBe(JSON.stringify(value));
      }),
      { numRuns: 2_000 },
    );
  });

  it("may be larger than its bytes, and larger than what was written before", () => {
    for (const value of [large, { "\u0000": "\u0000".repeat(300) }, { a: 1.2345678901234e-300 }]) {
      expect(jsonTextOf(structOfJson(value))).toBe(JSON.stringify(value));
    }
  });

  it("is not changed by what is written later", () => {
    const first = jsonBytesOf(structOfJson({ first: "x".repeat(100) }));
    jsonBytesOf(structOfJson({ other: "y".repeat(100) }));
    expect(first.toString()).toBe(JSON.stringify({ first: "x".repeat(100) }));
  });

  it("has all of its text, however much room there was for it", () => {
    // Numbers take more room as text, so that each of these comes to another place in the room that was reserved.
    for (let count = 0; count < 60; count++) {
      for (let length = 0; length < 10; length++) {
        const value = { list: Array.from({ length: count }, () => 0.12345678901234), text: "x".repeat(length) };
        expect(jsonTextOf(structOfJson(value))).toBe(JSON.stringify(value));
      }
    }
  });

  it("is not made of bytes that are damaged", () => {
    for (const damaged of [Buffer.from([0x0a, 0x05, 0x0a]), structOfJson({ a: "b" }).subarray(0, -1)]) {
      expect(() => jsonTextOf(damaged)).toThrow("a state is damaged");
    }
  });

  it("keeps the order of members, also of those that look like numbers", () => {
    const bytes = Buffer.concat([structOfJson({ b: 1 }), structOfJson({ "2": 1 }), structOfJson({ "1": 1 })]);
    expect(jsonTextOf(bytes)).toBe('{"b":1,"2":1,"1":1}');
  });
});
