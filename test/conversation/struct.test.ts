import { fromBinary, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { type Struct, StructSchema, type Value } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { field, messageOf, numberField, type Part } from "../../src/conversation/record/conversation-bytes.ts";
import { structOfJson } from "../../src/conversation/record/json.ts";
import { checkStruct } from "../../src/conversation/record/state.ts";
import { MOST_VALUES } from "../../src/conversation/record/struct-values.ts";
import type { FieldViolation } from "../../src/infra/failure.ts";
import { Fields } from "../../src/infra/fields.ts";
import { MOST_LEVELS } from "../../src/infra/json-levels.ts";
import { anyObject, anySpoiling, decodedStruct, encodedStruct, spoil } from "./struct-arbitrary.ts";

interface Checked {
  readonly plain: Uint8Array | undefined;
  readonly violations: readonly FieldViolation[];
}

function checked(bytes: Uint8Array): Checked {
  const fields = new Fields();
  const plain = checkStruct(fields, "state", bytes);
  return { plain, violations: fields.violations };
}

/** Whether a value in it sets no kind, as the generated code reads it. */
function isUndecided({ fields }: Struct): boolean {
  return Object.values(fields).some(isUndecidedValue);
}

function isUndecidedValue({ kind }: Value): boolean {
  if (kind.case === "structValue") return isUndecided(kind.value);
  return kind.case === "listValue" ? kind.value.values.some(isUndecidedValue) : kind.case === undefined;
}

/** What is to be refused of what the generated code has read. */
function isRefusable(value: JsonValue, level = 0): boolean {
  if (typeof value === "number") return !Number.isFinite(value);
  if (typeof value !== "object" || value === null) return false;
  return level === MOST_LEVELS || Object.values(value).some((inner) => isRefusable(inner, level + 1));
}

function wanted(bytes: Uint8Array): JsonObject | undefined {
  let state: JsonObject;
  try {
    if (isUndecided(fromBinary(StructSchema, bytes))) return undefined;
    state = decodedStruct(bytes);
  } catch {
    return undefined;
  }
  return isRefusable(state) || "messages" in state || "_metadata" in state ? undefined : state;
}

/** Objects, or lists in an object, within each other. */
function nested(levels: number, list: boolean): JsonObject {
  let value: JsonValue = list ? [] : {};
  for (let level = 2; level < levels; level++) value = list ? [value] : { in: value };
  return { in: value };
}

/** Objects of so many values, those in between counted. */
const crowds = {
  members: (values: number): JsonObject =>
    Object.fromEntries(Array.from({ length: values }, (_, i) => [`member ${i}`, i])),
  elements: (values: number): JsonObject => ({ list: Array.from({ length: values - 1 }, () => null) }),
  "lists and objects": (values: number): JsonObject => ({
    rows: Array.from({ length: Math.floor((values - 1) / 4) }, () => ({ a: [], b: { c: "" } })),
    ...Object.fromEntries(Array.from({ length: (values - 1) % 4 }, (_, i) => [`${i}`, true])),
  }),
};

const entry = (...parts: readonly Part[]) => field(1, ...parts);
const key = (name: string) => field(1, Buffer.from(name));
const value = (...parts: readonly Part[]) => field(2, ...parts);
const text = (said: string) => field(3, Buffer.from(said));
const struct = (...parts: readonly Part[]) => field(5, ...parts);
const list = (...parts: readonly Part[]) => field(6, ...parts);

describe("a struct that is checked as bytes", () => {
  it("stays as it is when the generated code has written it", () => {
    fc.assert(
      fc.property(anyObject, (state) => {
        const bytes = encodedStruct(state);
        expect(checked(bytes)).toEqual({ plain: bytes, violations: [] });
      }),
      { numRuns: 2_000 },
    );
  });

  it("is let through exactly when what the generated code reads may be kept, and says the same then", () => {
    fc.assert(
      fc.property(anyObject, anySpoiling, (state, spoiling) => {
        const bytes = spoil(structOfJson(state), spoiling);
        const { plain, violations } = checked(bytes);
        const expected = wanted(bytes);
        expect(plain && decodedStruct(plain)).toEqual(expected);
        expect(violations.length > 0).toBe(expected === undefined);
        // What is kept is plain: it passes once more, unchanged.
        if (plain !== undefined) expect(checked(plain).plain).toBe(plain);
      }),
      { numRuns: 6_000 },
    );
  });

  it("is refused with the path of each member that is wrong", () => {
    const state = {
      context: {
        score: Number.NaN,
        "a key": [1, { deep: Number.NEGATIVE_INFINITY }],
        'a"b': "\ud800",
        "": Number.NaN,
      },
      ["k".repeat(200)]: "a\udc00",
      "half \ud800": 1,
      messages: [],
      _metadata: {},
    };
    expect(checked(structOfJson(state)).violations).toEqual([
      { field: "state.context.score", description: "is a number that is not finite" },
      { field: 'state.context["a key"][1].deep', description: "is a number that is not finite" },
      { field: 'state.context["a\\"b"]', description: "is not valid UTF-8 text" },
      { field: 'state.context[""]', description: "is a number that is not finite" },
      { field: `state["${"k".repeat(100)}…"]`, description: "is not valid UTF-8 text" },
      { field: 'state["\ufffd"]', description: "has a name that is not valid UTF-8 text" },
      { field: "state.messages", description: "is not part of the state: messages have their own RPCs" },
      { field: "state._metadata", description: "is not part of the state: the server keeps it" },
    ]);
  });

  it("is refused for members with reserved names at the top level only", () => {
    const state = { context: { messages: [], _metadata: 1 }, message: 1 };
    expect(checked(structOfJson(state)).violations).toEqual([]);
  });

  it("tells twenty wrong members of thousands", () => {
    const state = { list: Array.from({ length: 10_000 }, () => Number.NaN) };
    expect(checked(structOfJson(state)).violations).toHaveLength(20);
  });

  it.each([false, true])("may nest thirty levels and no more (lists: %s)", (isList) => {
    const most = structOfJson(nested(MOST_LEVELS, isList));
    expect(checked(most)).toEqual({ plain: most, violations: [] });
    const [violation, ...others] = checked(structOfJson(nested(MOST_LEVELS + 1, isList))).violations;
    const steps = (isList ? "[0]" : ".in").repeat(MOST_LEVELS - 1);
    expect(violation).toEqual({ field: `state.in${steps}`, description: "nests more than 30 levels" });
    expect(others).toEqual([]);
  });

  it("is refused when it nests deeper than any decoder goes", () => {
    let bytes: Uint8Array = new Uint8Array();
    for (let level = 0; level < 5_000; level++) bytes = messageOf(entry(key("in"), value(struct(bytes))));
    expect(checked(bytes).violations).toMatchObject([{ description: "nests more than 30 levels" }]);
  });

  it("may have objects of many members", () => {
    const state = Object.fromEntries(Array.from({ length: 4_000 }, (_, i) => [`member ${i}`, { a: i, b: { a: i } }]));
    const bytes = structOfJson(state);
    expect(checked(bytes).plain).toBe(bytes);
  });

  it.each(Object.entries(crowds))("may hold so many values and no more: %s", (_, crowd) => {
    const most = structOfJson(crowd(MOST_VALUES));
    expect(checked(most)).toEqual({ plain: most, violations: [] });
    expect(() => checked(structOfJson(crowd(MOST_VALUES + 1)))).toThrow(
      expect.objectContaining({
        kind: "too_large",
        reason: "STATE_TOO_LARGE",
        message: "state: holds more than 16384 values: members of objects and elements of lists, at any depth",
        metadata: { field: "state", values_limit: "16384" },
      }),
    );
  });

  it("may not hold more values when it is written unusually, either, or fields that nobody knows", () => {
    const odd = numberField(9, 5);
    const most = Buffer.concat([structOfJson(crowds.elements(MOST_VALUES)), odd]);
    expect(checked(most).plain).toEqual(structOfJson(crowds.elements(MOST_VALUES)));
    const tooMany = [
      Buffer.concat([odd, structOfJson(crowds.elements(MOST_VALUES + 1))]),
      Buffer.concat([odd, structOfJson(crowds.elements(1_000_000))]),
      Buffer.concat(Array.from({ length: 1_000_000 }, () => odd)),
    ];
    for (const bytes of tooMany) {
      expect(() => checked(bytes)).toThrow(expect.objectContaining({ reason: "STATE_TOO_LARGE" }));
    }
  });

  it.each([2, 40, 60, 1_000])("has each member once, the one that came last, of %i", (count) => {
    const once = Array.from({ length: count }, (_, i) => entry(key(`member ${i}`), value(text(`${i}`))));
    for (const name of ["member 0", `member ${count - 1}`]) {
      const { plain, violations } = checked(messageOf(...once, entry(key(name), value(text("again")))));
      expect(violations).toEqual([]);
      expect(plain).toEqual(structOfJson({ ...decodedStruct(messageOf(...once)), [name]: "again" }));
    }
  });

  it.each<[string, readonly Part[]]>([
    ["a member without a name", [entry(value(text("a")))]],
    ["a value before its name", [entry(value(text("a")), key("a"))]],
    ["a name that comes twice", [entry(key("a"), key("b"), value(text("c")))]],
    ["a value that comes twice", [entry(key("a"), value(text("b")), value(text("c")))]],
    ["a value whose kind comes in a second piece", [entry(key("a"), value(), value(text("b")))]],
    ["a value of no kind that another one replaces", [entry(key("a"), value()), entry(key("a"), value(text("b")))]],
    ["a value of two kinds", [entry(key("a"), value(text("b"), numberField(4, 1)))]],
    ["an object in two pieces", [entry(key("a"), value(struct(entry(key("b"), value(text("c")))), struct()))]],
    ["a list in two pieces", [entry(key("a"), value(list(field(1, text("a"))), list(field(1, text("b")))))]],
    ["another null", [entry(key("a"), value(numberField(1, 5)))]],
    ["another true", [entry(key("a"), value(numberField(4, 5)))]],
    ["fields that nobody knows", [numberField(9, 5), entry(key("a"), value(text("b"), numberField(9, 5)))]],
    ["a long tag", [Buffer.from([0x8a, 0x00, 0x07, 0x0a, 0x01, 0x61, 0x12, 0x02, 0x20, 0x01])]],
  ])("is written anew with %s", (_, parts) => {
    const bytes = messageOf(...parts);
    const { plain, violations } = checked(bytes);
    expect(violations).toEqual([]);
    expect(plain).toEqual(structOfJson(decodedStruct(bytes)));
    expect(plain).not.toEqual(bytes);
  });

  it("is refused for what is wrong with it, however it is written", () => {
    const infinite = Buffer.from([0x11, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f]);
    const bytes = messageOf(
      entry(key("a"), value()),
      entry(key("b"), value(infinite)),
      entry(value(text("c")), key("messages")),
    );
    expect(checked(bytes).violations.map(({ field: path }) => path)).toEqual(["state.a", "state.b", "state.messages"]);
  });

  it.each<[string, readonly Part[], readonly string[]]>([
    ["a member", [entry(key("a"), value()), entry(key("b"), value(text("c")))], [".a"]],
    ["the last member", [entry(key("b"), value(text("c"))), entry(key("a"), value())], [".a"]],
    ["elements", [entry(key("a"), value(list(field(1), field(1, text("b")), field(1))))], [".a[0]", ".a[2]"]],
    ["deep inside", [entry(key("a b"), value(struct(entry(key("c"), value()))))], ['["a b"].c']],
    ["a member without a value", [entry(key("a"))], [".a"]],
    ["nothing of a member", [entry()], ['[""]']],
    ["in a struct that is written unusually", [numberField(9, 5), entry(key("a"), value())], [".a"]],
    ["a kind that nobody knows", [entry(key("a"), value(numberField(9, 5)))], [".a"]],
  ])("is refused for a value that sets no kind, which protobuf would read as null: %s", (_, parts, paths) => {
    const description = expect.stringContaining("is a value of no kind");
    const { plain, violations } = checked(messageOf(...parts));
    expect(violations).toEqual(paths.map((path) => ({ field: `state${path}`, description })));
    expect(plain).toBeUndefined();
  });

  it("tells twenty values of no kind of thousands, however it is written", () => {
    const many = Array.from({ length: 1_000 }, () => field(1));
    for (const odd of [[], [numberField(9, 5)]]) {
      expect(checked(messageOf(...odd, entry(key("a"), value(list(...many))))).violations).toHaveLength(20);
    }
  });

  const notText = Buffer.from([0xc3, 0x28]);
  it.each<[string, readonly Part[], string, RegExp]>([
    ["bytes that are no struct", [Buffer.from([0x0a, 0x05, 0x0a])], "", /cut short/],
    [
      "text that is none, written unusually",
      [numberField(9, 5), entry(key("a"), value(field(3, notText)))],
      ".a",
      /UTF-8/,
    ],
    [
      "text that is none, deep in it",
      [
        numberField(9, 5),
        entry(
          key("context"),
          value(struct(entry(key("items"), value(list(field(1, text("x")), field(1, field(3, notText))))))),
        ),
      ],
      ".context.items[1]",
      /UTF-8/,
    ],
    ["a name that is no text", [entry(value(), field(1, notText))], '["\ufffd("]', /name .* UTF-8/],
    ["a value that is cut", [entry(key("a b"), value(Buffer.from([0x1a, 0x09, 0x61])))], '["a b"]', /cut short/],
    ["a value that is no message", [entry(key("a"), Buffer.from([0x10, 0x05]))], ".a", /wire type|cut short/],
  ])("is refused when protobuf does not read it, with the path: %s", (_, parts, path, description) => {
    expect(checked(messageOf(...parts)).violations).toEqual([
      { field: `state${path}`, description: expect.stringMatching(/^is not a valid google\.protobuf\.Struct: ./) },
    ]);
    expect(checked(messageOf(...parts)).violations[0]?.description).toMatch(description);
  });
});
