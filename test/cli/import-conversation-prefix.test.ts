import { describe, expect, it } from "vitest";
import { mayCollide, namedBy, prefixesOf } from "../../src/cli/import/conversation-source.ts";

describe("a prefix", () => {
  it("names a collection, and the longest that fits decides", () => {
    const prefixes = prefixesOf(["a=x:", "b=x:y:"]);
    expect(namedBy("x:1", prefixes)).toEqual({ collection: "a", id: "1" });
    expect(namedBy("x:y:1", prefixes)).toEqual({ collection: "b", id: "1" });
    expect(() => namedBy("x:", prefixes)).toThrow('its key is the prefix "x:" alone');
    expect(() => namedBy("x:y:", prefixes)).toThrow('its key is the prefix "x:y:" alone');
    expect(namedBy("z:1", prefixes)).toBeUndefined();
  });

  it("may share its collection with another, and two keys may mean the same then", () => {
    expect(mayCollide(prefixesOf(["a=x:", "a=y:"]))).toBe(true);
    expect(mayCollide(prefixesOf(["a=x:", "b=y:"]))).toBe(false);
  });

  it.each(["", "a b", "a=", "=x:", "x".repeat(129)])("is refused when it is none: %j", (text) => {
    expect(() => prefixesOf([text])).toThrow(/--collection is/);
  });
});
