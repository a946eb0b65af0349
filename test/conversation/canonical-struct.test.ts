import { fromBinary, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { expect, it } from "vitest";
import { canonicalStruct } from "../../src/conversation/record/canonical-struct.ts";
import { structOfJson } from "../../src/conversation/record/struct-writer.ts";

const { tree } = fc.letrec<{ tree: JsonValue }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.oneof(fc.string(), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean(), fc.constant(null)),
    fc.array(tie("tree"), { maxLength: 4 }),
    fc.dictionary(fc.string({ unit: "grapheme", maxLength: 4 }), tie("tree"), { maxKeys: 5, noNullPrototype: true }),
  ),
}));
const object = fc.dictionary(fc.string({ maxLength: 5 }), tree, { maxKeys: 8, noNullPrototype: true });

/** The same with the members of every object the other way round. */
function reversed(json: JsonValue): JsonValue {
  if (Array.isArray(json)) return json.map(reversed);
  return typeof json === "object" && json !== null ? reversedObject(json) : json;
}

function reversedObject(json: JsonObject): JsonObject {
  const members = Object.entries(json).map(([name, value]): [string, JsonValue] => [name, reversed(value)]);
  return Object.fromEntries(members.toReversed());
}

it("is the same bytes however the members of objects are ordered, and still the same struct", () => {
  fc.assert(
    fc.property(object, (json) => {
      const bytes = structOfJson(json);
      const canonical = canonicalStruct(bytes);
      expect(canonicalStruct(structOfJson(reversedObject(json)))).toEqual(canonical);
      expect(canonical).toHaveLength(bytes.length);
      expect(fromBinary(StructSchema, canonical)).toEqual(fromBinary(StructSchema, bytes));
    }),
  );
});

it("is other bytes where a list has another order, or a member another value", () => {
  const bytesOf = (json: JsonObject) => canonicalStruct(structOfJson(json)).toString("hex");
  const all = [{}, { a: 1 }, { a: 2 }, { b: 1 }, { a: [1, 2] }, { a: [2, 1] }, { a: { b: 1 } }, { a: [{ b: 1 }] }];
  expect(new Set(all.map(bytesOf)).size).toBe(all.length);
});
