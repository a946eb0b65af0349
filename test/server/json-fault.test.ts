import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { jsonFault } from "../../src/server/json-fault.ts";

const tooDeep = "[".repeat(50_000);

describe("a text that is not JSON", () => {
  it.each<[string, string, RegExp]>([
    ['{"state": {"a": NaN}}', "state.a", /^is NaN, which is no number in JSON/],
    ['{"state":{"context":{"items":[1,2,3,Infinity]}}}', "state.context.items[3]", /^is Infinity/],
    ['{"state":{"a b":[{},-Infinity]}}', 'state["a b"][1]', /^is -Infinity/],
    ['{"a":{"b":1},"c":[[],{"d":[],"e":nan}]}', "c[1].e", /^is nan/],
    ['{"a":None}', "a", /^is None, which is not JSON/],
    ['{"a":undefined}', "a", /^is undefined/],
    ['{"a":True}', "a", /^is True/],
    ['{"key":"k', "key", /ends in the middle/],
    ['{"a":[1,2', "a[1]", /ends in the middle/],
    ['{"a":', "a", /ends in the middle/],
    ["", "", /ends in the middle/],
    ["key=k", "", /^is key, which is not JSON/],
    ['{"a":1,}', "", /has "}" where a name in quotes is wanted/],
    ['{"in":{"a":1,}}', "in", /has "}" where a name/],
    ['{"a":[1,]}', "a[1]", /has "]" where a value is wanted/],
    ['{"a":[1 2]}', "a[0]", /has "2" where a comma or ] is wanted/],
    ['{"a":1 "b":2}', "a", /where a comma or } is wanted/],
    ["{'a':1}", "", /has "'" where a name in quotes/],
    ['{"a" 1}', "a", /where a colon is wanted/],
    ['{"a":01}', "a", /has "1" where a comma or }/],
    ['{"a":.5}', "a", /has "." where a value/],
    ['{"a":"x\ny"}', "a", /line break/],
    ['{"a":"C:\\dir"}', "a", /backslash/],
    ['{"a":"\\u12"}', "a", /backslash/],
    ['{"a":"\\n\\u00e9\\"","b":"\\', "b", /backslash|the middle/],
    ['{"a":1}}', "", /where the end is wanted/],
    ["{} {}", "", /where the end is wanted/],
    [`{"a":"${"x".repeat(5_000_000)}","b":-}`, "b", /where a value/],
    [`{"a":{"${"k".repeat(200)}":NaN}}`, `a["${"k".repeat(100)}…"]`, /NaN/],
  ])("is told by the path of what is wrong: %.50s", (text, path, description) => {
    expect(() => JSON.parse(text)).toThrow();
    expect(jsonFault(text)).toEqual({ field: path, description: expect.stringMatching(description) });
  });

  it("is told by a path that is not endless", () => {
    expect(jsonFault(tooDeep)).toEqual({ field: "[0]".repeat(100), description: expect.stringContaining("ends") });
  });

  it("is found whenever JSON.parse refuses it, and only then", () => {
    const marks = fc.constantFrom(...'{}[]:,"\\ \n\te+-.0172', "true", "null", "NaN", '"a"', "\u0001", "\\u00e9", "ü");
    const text = fc.array(marks, { maxLength: 12 }).map((parts) => parts.join(""));
    const changed = fc.tuple(fc.json(), fc.nat(), marks).map(([json, at, mark]) => {
      const place = at % (json.length + 1);
      return json.slice(0, place) + mark + json.slice(place + 1);
    });
    fc.assert(
      fc.property(fc.oneof(text, changed, fc.json()), (given) => {
        expect(jsonFault(given) === undefined).toBe(isJson(given));
      }),
      { numRuns: 20_000 },
    );
  });
});

it("is not looked for behind very many values, which would hold up everyone else", () => {
  const many = (count: number) => `{"a":[${"1,".repeat(count)}NaN]}`;
  expect(jsonFault(many(1_000))?.field).toBe("a[1000]");
  expect(jsonFault(many(1_000_000))).toBeUndefined();
});

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
