import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { field, messageOf, numberField, type Part } from "../../src/conversation/record/conversation-bytes.ts";
import { jsonTextOf, structOfJson } from "../../src/conversation/record/json.ts";
import { mergePatch } from "../../src/conversation/record/merge.ts";
import { checkStruct } from "../../src/conversation/record/state.ts";
import { Fields } from "../../src/infra/fields.ts";
import { anyObject, decodedStruct } from "./struct-arbitrary.ts";

/** Whether to do the next thing oddly. */
type Dice = () => boolean;

const anyDice: fc.Arbitrary<Dice> = fc.array(fc.boolean(), { minLength: 1, maxLength: 50 }).map((throws) => {
  let next = 0;
  return () => throws[next++ % throws.length] ?? false;
});

const UNKNOWN = numberField(9, 5);

/** JSON as nobody writes it whom we know, and as protobuf allows: the same is said, but not plainly. */
function oddStruct(object: JsonObject, dice: Dice): Part[] {
  return Object.entries(object).flatMap(([name, inner]) => {
    const key = field(1, Buffer.from(name));
    const value = field(2, ...oddValue(inner, dice));
    const parts: Part[] = dice() ? [field(1, value, key)] : [field(1, key, value)];
    // Of a name that comes twice the last one holds.
    if (dice()) parts.unshift(field(1, key, field(2, field(3, Buffer.from("earlier")))));
    if (dice()) parts.push(UNKNOWN);
    return parts;
  });
}

function oddValue(value: JsonValue, dice: Dice): Part[] {
  const parts = kindOf(value, dice);
  // Of two kinds the last one holds.
  if (parts.length > 0 && dice()) parts.unshift(numberField(4, 1));
  if (dice()) parts.push(UNKNOWN);
  return parts;
}

function kindOf(value: JsonValue, dice: Dice): Part[] {
  switch (typeof value) {
    case "string":
      return [field(3, Buffer.from(value))];
    case "boolean":
      return [Buffer.from([0x20, value ? 1 : 0])];
    case "number": {
      const bytes = Buffer.from([0x11, 0, 0, 0, 0, 0, 0, 0, 0]);
      bytes.writeDoubleLE(value, 1);
      return [bytes];
    }
  }
  if (value === null) return [Buffer.from([0x08, 0x00])];
  if (Array.isArray(value)) return [field(6, ...value.map((item) => field(1, ...oddValue(item, dice))))];
  return [field(5, ...oddStruct(value, dice))];
}

function plainOf(bytes: Uint8Array): Uint8Array {
  const fields = new Fields();
  const plain = checkStruct(fields, "state", bytes);
  fields.done();
  if (plain === undefined) throw new Error("nothing was refused, and nothing is there");
  return plain;
}

describe("a struct that is written oddly", () => {
  it("says what protobuf reads in it, plainly", () => {
    fc.assert(
      fc.property(anyObject, anyDice, (object, dice) => {
        const bytes = messageOf(...oddStruct(object, dice));
        expect(decodedStruct(bytes)).toEqual(object);
        const plain = plainOf(bytes);
        expect(decodedStruct(plain)).toEqual(object);
        expect(plainOf(plain)).toBe(plain);
        const [text, wanted] = [jsonTextOf(plain), JSON.stringify(object)];
        // The same text is right: V8's parser was seen to make two different objects of it, one after the other.
        if (text !== wanted) expect(JSON.parse(text)).toEqual(JSON.parse(wanted));
      }),
      { numRuns: 3_000 },
    );
  });

  it("is merged as one that is written plainly", () => {
    fc.assert(
      fc.property(anyObject, anyObject, anyDice, (state, patch, dice) => {
        const [oddState, oddPatch] = [messageOf(...oddStruct(state, dice)), messageOf(...oddStruct(patch, dice))];
        const wanted = mergePatch(structOfJson(state), structOfJson(patch));
        expect(decodedStruct(mergePatch(plainOf(oddState), plainOf(oddPatch)))).toEqual(decodedStruct(wanted));
      }),
      { numRuns: 1_000 },
    );
  });
});

describe("text that is none", () => {
  /** UTF-16 with halves of pairs in it, now and then. */
  const anyUtf16 = fc
    .array(fc.constantFrom("a", "ü", "\ud83d", "\ude00", "\udfff", "😀"), { maxLength: 4 })
    .map((units) => units.join(""));
  const anyTexts = fc.dictionary(anyUtf16, fc.oneof(anyUtf16, fc.array(anyUtf16, { maxLength: 3 })), { maxKeys: 4 });

  it("is refused wherever it stands, and nothing else is", () => {
    fc.assert(
      fc.property(anyTexts, (object) => {
        const fields = new Fields();
        const plain = checkStruct(fields, "state", structOfJson({ in: object }));
        const isText = Object.entries(object)
          .flat(2)
          .every((text) => text.isWellFormed());
        expect(fields.violations.length === 0).toBe(isText);
        expect(plain && decodedStruct(plain)).toEqual(isText ? { in: object } : undefined);
        for (const { field: path, description } of fields.violations) {
          expect(path).toMatch(/^state\.in/);
          expect(path.isWellFormed()).toBe(true);
          expect(description).toMatch(/UTF-8/);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
