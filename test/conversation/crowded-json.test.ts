import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { refuseCrowded } from "../../src/conversation/record/crowded-json.ts";
import { MOST_PARTS, MOST_VALUES } from "../../src/conversation/record/struct-values.ts";
import { anyJson } from "./struct-arbitrary.ts";

/** Values in which each mark comes as often as it may, or once more. */
const shapes: Record<string, (values: number) => JsonObject> = {
  members: (values) => Object.fromEntries(Array.from({ length: values }, (_, i) => [`${i}`, 0])),
  elements: (values) => ({ list: Array.from({ length: values - 1 }, () => 0) }),
  lists: (values) => ({ list: Array.from({ length: values - 1 }, () => []) }),
  "nested lists": (values) => ({
    list: Array.from({ length: (values - 1) / 3 }, (): JsonValue => [[[]]]),
    ...Object.fromEntries(Array.from({ length: (values - 1) % 3 }, (_, i) => [`${i}`, 0])),
  }),
  "texts of marks": (values) => ({ list: Array.from({ length: values - 1 }, () => ',[{"\\":') }),
};

/** For what passes, another look has the word: it may be up to twice of what is allowed. */
const FAR_BEYOND = 2 * MOST_VALUES + 2;

describe("the text of a request in JSON", () => {
  it.each(Object.entries(shapes))("passes with as many values as may be: %s", (_, shape) => {
    refuseCrowded(JSON.stringify({ id: "c", state: shape(MOST_VALUES), patch: shape(MOST_VALUES), x: [1, 2] }));
    refuseCrowded(JSON.stringify({ patch: shape(MOST_VALUES), state: shape(MOST_VALUES) }, undefined, 2));
  });

  it("is refused however the name of the field is written", () => {
    const text = JSON.stringify({ state: shapes.members?.(FAR_BEYOND) }).replace("state", "st\\u0061te");
    expect(Object.keys(JSON.parse(text))).toEqual(["state"]);
    expect(() => refuseCrowded(text)).toThrow(expect.objectContaining({ reason: "STATE_TOO_LARGE" }));
  });

  describe.each(["state", "patch"])("with far too much in its %s", (field) => {
    it.each(Object.entries(shapes))("is refused, which names the field: %s", (_, shape) => {
      for (const space of [undefined, 1]) {
        const text = JSON.stringify({ id: "c,:{[", [field]: shape(FAR_BEYOND), messages: [] }, undefined, space);
        expect(() => refuseCrowded(text)).toThrow(
          expect.objectContaining({
            kind: "too_large",
            reason: "STATE_TOO_LARGE",
            metadata: { field, values_limit: "16384" },
          }),
        );
      }
    });
  });

  it("is refused with far too much in its messages, which have fields of their own", () => {
    const message = { role: "user", metadata: { a: Array.from({ length: MOST_VALUES - 2 }, () => 0) } };
    refuseCrowded(JSON.stringify({ messages: [message, message] }));
    const many = Array.from({ length: Math.ceil(MOST_PARTS / MOST_VALUES) + 1 }, () => message);
    expect(() => refuseCrowded(JSON.stringify({ messages: many }))).toThrow(
      expect.objectContaining({ reason: "TOO_MANY_MESSAGES", metadata: { field: "messages", values_limit: "16384" } }),
    );
  });

  it("is left to others when it is no request, or no JSON", () => {
    const zeros = "0,".repeat(FAR_BEYOND);
    for (const text of [
      `[${zeros}0]`,
      `{"other":[${zeros}0]}`,
      `{${"[".repeat(FAR_BEYOND)}`,
      '"\\'.repeat(FAR_BEYOND),
    ]) {
      refuseCrowded(text);
    }
  });

  it("passes whatever it holds in texts, in names and in other members", () => {
    fc.assert(
      fc.property(fc.array(anyJson, { maxLength: 50 }), fc.string({ unit: "binary" }), (others, name) => {
        const padding = '",:[]{}\\'.repeat(MOST_VALUES);
        refuseCrowded(JSON.stringify({ [`${name} `]: others, state: { [`${name}${padding}`]: others, b: padding } }));
      }),
      { numRuns: 20 },
    );
  });
});
