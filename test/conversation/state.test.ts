import type { JsonObject } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { State } from "../../src/conversation/record/conversation.ts";
import { field, messageOf } from "../../src/conversation/record/conversation-bytes.ts";
import { structOfJson } from "../../src/conversation/record/json.ts";
import { checkState, MOST_STATE_BYTES } from "../../src/conversation/record/state.ts";
import { Fields } from "../../src/infra/fields.ts";
import { anyJson, anyObject } from "./struct-arbitrary.ts";

function stateOf(json: JsonObject): State | undefined {
  return checkState(new Fields(), "state", structOfJson(json));
}

const NOT_KNOWN = { userId: "", status: "", complexityLevel: "", confidenceScore: undefined };

/** A state of exactly so many bytes. */
function sized(bytes: number): Buffer {
  const frame = structOfJson({ text: "x".repeat(bytes - 100) }).length - (bytes - 100);
  return structOfJson({ text: "x".repeat(bytes - frame) });
}

describe("what is known of a state", () => {
  it("is what its top-level members say", () => {
    const json = { status: "active", a: { status: "x" }, confidence_score: -0.5, complexity_level: "ü", user_id: "u" };
    expect(stateOf(json)).toMatchObject({
      userId: "u",
      status: "active",
      complexityLevel: "ü",
      confidenceScore: -0.5,
    });
  });

  it("is nothing where it has no such members", () => {
    expect(stateOf({})).toEqual({ ...NOT_KNOWN, bytes: structOfJson({}) });
    expect(stateOf({ Status: "a", status_: "b", user: { user_id: "c" } })).toMatchObject(NOT_KNOWN);
  });

  it("is what any state says that has them", () => {
    const known = { user_id: anyJson, status: anyJson, complexity_level: anyJson, confidence_score: anyJson };
    fc.assert(
      fc.property(anyObject, fc.record(known, { requiredKeys: [] }), (others, members) => {
        const json: JsonObject = { ...others, ...members };
        const text = (value: unknown) => (typeof value === "string" && !value.includes("\0") ? value : "");
        const score = json.confidence_score;
        expect(stateOf(json)).toMatchObject({
          userId: text(json.user_id),
          status: text(json.status),
          complexityLevel: text(json.complexity_level),
          confidenceScore: typeof score === "number" ? score : undefined,
        });
      }),
      { numRuns: 1_000 },
    );
  });

  it("leaves out texts that no index can hold, which the state keeps", () => {
    const longest = "ü".repeat(256);
    expect(stateOf({ status: longest })).toMatchObject({ status: longest });
    for (const status of [`${longest}x`, "x".repeat(513), "a\0b"]) {
      expect(stateOf({ status })).toEqual({ ...NOT_KNOWN, bytes: structOfJson({ status }) });
    }
  });

  it("is read from a length that is written long", () => {
    const long = Buffer.from([0x1a, 0x82, 0x00, 0x6f, 0x6b]);
    const bytes = messageOf(field(1, field(1, Buffer.from("status")), field(2, long)));
    expect(checkState(new Fields(), "state", bytes)).toMatchObject({ status: "ok" });
  });
});

describe("the size of a state", () => {
  it("may be four mebibytes", () => {
    const bytes = sized(MOST_STATE_BYTES);
    expect(bytes.length).toBe(MOST_STATE_BYTES);
    expect(checkState(new Fields(), "state", bytes)?.bytes).toBe(bytes);
  });

  it("may not be more", () => {
    expect(() => checkState(new Fields(), "state", sized(MOST_STATE_BYTES + 1))).toThrow(
      expect.objectContaining({
        kind: "too_large",
        reason: "STATE_TOO_LARGE",
        message: "state: is 4194305 bytes long, encoded; the limit is 4194304",
      }),
    );
  });

  it("may not be more once it is written plainly, either", () => {
    // A member without a name is two bytes shorter than one with an empty name.
    const none = messageOf(field(1, field(2, field(3, Buffer.from("a")))));
    const bytes = Buffer.concat([none, sized(MOST_STATE_BYTES - none.length)]);
    expect(() => checkState(new Fields(), "state", bytes)).toThrow(
      expect.objectContaining({ reason: "STATE_TOO_LARGE" }),
    );
  });
});
