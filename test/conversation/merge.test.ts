import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Merge } from "../../src/conversation/change/order.ts";
import { jsonTextOf, structOfJson } from "../../src/conversation/record/json.ts";
import { createMerge, mergePatch } from "../../src/conversation/record/merge.ts";
import { checkStruct, MOST_STATE_BYTES } from "../../src/conversation/record/state.ts";
import { MOST_VALUES } from "../../src/conversation/record/struct-values.ts";
import { Fields } from "../../src/infra/fields.ts";
import { anyObject, decodedStruct } from "./struct-arbitrary.ts";

function merged(state: JsonObject, patch: JsonObject): JsonObject {
  return decodedStruct(mergePatch(structOfJson(state), structOfJson(patch)));
}

/** As RFC 7396 writes it down. */
function mergedJson(target: JsonValue | undefined, patch: JsonValue): JsonValue {
  if (!isObject(patch)) return patch;
  const result = new Map(isObject(target) ? Object.entries(target) : []);
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) result.delete(name);
    else result.set(name, mergedJson(result.get(name), value));
  }
  return Object.fromEntries(result);
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Few names, so that patches meet what is there. */
const anyTree: fc.Arbitrary<JsonObject> = fc.letrec<{ value: JsonValue; object: JsonObject }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constant(null),
    fc.integer({ min: 0, max: 3 }),
    fc.array(tie("value"), { maxLength: 2 }),
    { weight: 3, arbitrary: tie("object") },
  ),
  object: fc.dictionary(fc.constantFrom("a", "b", "ü", "", "__proto__", "constructor"), tie("value"), { maxKeys: 4 }),
})).object;

function mergeOf(patch: JsonObject): Merge {
  const fields = new Fields();
  const merge = createMerge(fields, "patch", structOfJson(patch));
  fields.done();
  if (merge === undefined) throw new Error("nothing was refused, and there is no merge");
  return merge;
}

// The test cases of RFC 7396, appendix A: target, patch, result.
const APPENDIX: readonly (readonly [JsonValue, JsonValue, JsonValue])[] = [
  [{ a: "b" }, { a: "c" }, { a: "c" }],
  [{ a: "b" }, { b: "c" }, { a: "b", b: "c" }],
  [{ a: "b" }, { a: null }, {}],
  [{ a: "b", b: "c" }, { a: null }, { b: "c" }],
  [{ a: ["b"] }, { a: "c" }, { a: "c" }],
  [{ a: "c" }, { a: ["b"] }, { a: ["b"] }],
  [{ a: { b: "c" } }, { a: { b: "d", c: null } }, { a: { b: "d" } }],
  [{ a: [{ b: "c" }] }, { a: [1] }, { a: [1] }],
  [
    ["a", "b"],
    ["c", "d"],
    ["c", "d"],
  ],
  [{ a: "b" }, ["c"], ["c"]],
  [{ a: "foo" }, "bar", "bar"],
  [{ e: null }, { a: 1 }, { e: null, a: 1 }],
  [[1, 2], { a: "b", c: null }, { a: "b" }],
  [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
];

describe("a merge patch", () => {
  it.each(APPENDIX.filter(([target, patch]) => isObject(target) && isObject(patch)))(
    "of %j with %j makes %j",
    (target, patch, result) => {
      if (isObject(target) && isObject(patch)) expect(merged(target, patch)).toEqual(result);
    },
  );

  it.each(APPENDIX)("of a member %j with %j makes it %j", (target, patch, result) => {
    expect(merged({ x: target, y: 1 }, { x: patch })).toEqual({ x: result, y: 1 });
  });

  it("of a member with null removes it", () => {
    expect(merged({ x: { a: "foo" }, y: 1 }, { x: null })).toEqual({ y: 1 });
  });

  it("keeps nulls in lists, and in objects in lists", () => {
    expect(merged({}, { a: [null, { b: null }] })).toEqual({ a: [null, { b: null }] });
  });

  it("makes what RFC 7396 says of any two", () => {
    fc.assert(
      fc.property(fc.oneof(anyTree, anyObject), fc.oneof(anyTree, anyObject), (state, patch) => {
        expect(merged(state, patch)).toEqual(mergedJson(state, patch));
      }),
      { numRuns: 3_000 },
    );
  });

  it("leaves members where they are, and adds others behind them", () => {
    const state = structOfJson({ z: 1, a: { y: 1, b: 2 }, c: 3 });
    const patch = structOfJson({ new: 5, c: 4, a: { n: 1, y: 2 }, newer: 6 });
    expect(jsonTextOf(mergePatch(state, patch))).toBe('{"z":1,"a":{"y":2,"b":2,"n":1},"c":4,"new":5,"newer":6}');
  });

  it("of nothing leaves the bytes as they are", () => {
    const state = structOfJson({ a: 1 });
    expect(mergePatch(state, new Uint8Array())).toBe(state);
  });

  it("is not merged into bytes that are damaged", () => {
    const damaged = structOfJson({ a: "b" }).subarray(0, -1);
    expect(() => mergePatch(damaged, structOfJson({ a: 1 }))).toThrow("a state is damaged");
  });

  it("may change every second of very many members", () => {
    const members = Array.from({ length: 200_000 }, (_, i) => [`${i}`, null] as const);
    const patch = members.filter((_, i) => i % 2 === 0).map(([name]) => [name, true] as const);
    const state: JsonObject = { ...Object.fromEntries(members), in: Object.fromEntries(members) };
    const result = mergePatch(
      structOfJson(state),
      structOfJson({ ...Object.fromEntries(patch), in: Object.fromEntries(patch) }),
    );
    const changed = { ...Object.fromEntries(members), ...Object.fromEntries(patch) };
    const wanted = { ...changed, in: changed };
    // Compared as a whole: showing where so large texts differ takes minutes.
    expect(jsonTextOf(result) === JSON.stringify(wanted)).toBe(true);
  });
});

describe("a merge that a caller orders", () => {
  it("makes a state with what is known of it", () => {
    const state = mergeOf({ status: "closed", user_id: null })(structOfJson({ user_id: "u", status: "open", a: 1 }));
    expect(state).toEqual({
      ...{ userId: "", status: "closed", complexityLevel: "", confidenceScore: undefined },
      bytes: structOfJson({ status: "closed", a: 1 }),
    });
  });

  it("is refused with the path of each member that is wrong", () => {
    const fields = new Fields();
    const patch = structOfJson({ messages: null, a: { b: Number.NaN } });
    expect(createMerge(fields, "patch", patch)).toBeUndefined();
    expect(fields.violations.map(({ field }) => field)).toEqual(["patch.a.b", "patch.messages"]);
  });

  it("is refused when the patch itself is larger than a state may be", () => {
    const patch = structOfJson({ a: "x".repeat(MOST_STATE_BYTES) });
    expect(() => createMerge(new Fields(), "patch", patch)).toThrow(
      expect.objectContaining({
        reason: "STATE_TOO_LARGE",
        message: expect.stringMatching(/^patch: is 41943\d\d bytes/),
      }),
    );
  });

  it("fails when the state would become too large", () => {
    const half = "x".repeat(MOST_STATE_BYTES / 2);
    const merge = mergeOf({ b: half });
    expect(merge(structOfJson({ b: half })).bytes.length).toBeLessThan(MOST_STATE_BYTES);
    expect(() => merge(structOfJson({ a: half }))).toThrow(
      expect.objectContaining({ kind: "too_large", reason: "STATE_TOO_LARGE" }),
    );
  });

  it("fails when the state would hold too many values, which those that are merged do not", () => {
    const list = (values: number) => Array.from({ length: values }, (_, i) => i);
    const state = structOfJson({ a: list(MOST_VALUES / 2), b: 1 });
    const left = MOST_VALUES / 2 - 3;
    const merge = mergeOf({ c: { d: list(left) }, b: null });
    const { bytes } = merge(state);
    expect(decodedStruct(bytes)).toEqual({ a: list(MOST_VALUES / 2), c: { d: list(left) } });
    expect(checkStruct(new Fields(), "state", bytes)).toBe(bytes);
    for (const others of [{ b: 2 }, { c: { d: list(left + 1) }, b: null }, { c: { d: list(left), e: [] }, b: null }]) {
      expect(() => mergeOf({ c: { d: list(left) }, ...others })(state)).toThrow(
        expect.objectContaining({ reason: "STATE_TOO_LARGE", metadata: { field: "state", values_limit: "16384" } }),
      );
    }
  });

  it("may be carried out again on another state", () => {
    const merge = mergeOf({ b: 1 });
    expect(jsonTextOf(merge(structOfJson({ a: 1 })).bytes)).toBe('{"a":1,"b":1}');
    expect(jsonTextOf(merge(structOfJson({ b: 2, c: 1 })).bytes)).toBe('{"b":1,"c":1}');
  });
});
