import { create, fromBinary, toBinary, toJsonString } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  AuditServiceAppendRequestSchema,
  AuditServiceIngestRequestSchema,
  AuditServiceListRequestSchema,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { CacheServiceSetManyRequestSchema } from "../../src/gen/holdfast/v1/cache_pb.js";
import { decode, refuseCrowdedJson } from "../../src/infra/decode.ts";

const MIB = 2 ** 20;
/** A field of nothing, again and again. */
const empties = (field: number, length: number) => {
  const one = new BinaryWriter().tag(field, WireType.LengthDelimited).uint32(0).finish();
  return Buffer.alloc(length - (length % one.length), one);
};
const within = (field: number, bytes: Uint8Array) =>
  new BinaryWriter().tag(field, WireType.LengthDelimited).bytes(bytes).finish();

describe("a request that was made to take memory", () => {
  it.each([
    ["items of nothing", CacheServiceSetManyRequestSchema, empties(2, 2 * MIB)],
    ["records of nothing", AuditServiceAppendRequestSchema, empties(2, 2 * MIB)],
    ["records in a batch", AuditServiceIngestRequestSchema, within(2, empties(2, 2 * MIB))],
    ["attributes in a filter", AuditServiceListRequestSchema, within(1, empties(12, 2 * MIB))],
    [
      "values in a list in an attribute",
      AuditServiceAppendRequestSchema,
      within(2, within(2, within(9, within(1, within(2, within(6, empties(1, 2 * MIB))))))),
    ],
    ["entries of a Struct", AuditServiceAppendRequestSchema, within(2, within(2, within(9, empties(1, 2 * MIB))))],
    ["fields that nobody knows", AuditServiceAppendRequestSchema, empties(15, 2 * MIB)],
    ["such fields deep inside", AuditServiceAppendRequestSchema, within(2, within(2, empties(15, 2 * MIB)))],
  ])("is refused before anything is made of it: %s", (_what, desc, bytes) => {
    expect(() => decode(desc, bytes)).toThrow("more than 500000 messages");
    expect(fromBinary(desc, bytes)).toBeDefined();
  });

  it("is refused as JSON, too", () => {
    expect(() => refuseCrowdedJson(`{"records":[${"{},".repeat(MIB)}{}]}`)).toThrow("more than 500000 messages");
    expect(() => refuseCrowdedJson("[".repeat(2 * MIB))).toThrow("more than 500000 messages");
  });
});

describe("a request that is large", () => {
  const text = '{[,"\\'.repeat(MIB);
  it("is decoded where it holds much of one thing", () => {
    const items = [{ key: "k", value: { kind: { case: "text" as const, value: text } }, tags: ["a", "b"] }];
    const message = create(CacheServiceSetManyRequestSchema, { items });
    expect(decode(CacheServiceSetManyRequestSchema, toBinary(CacheServiceSetManyRequestSchema, message))).toEqual(
      message,
    );
    expect(() => refuseCrowdedJson(toJsonString(CacheServiceSetManyRequestSchema, message))).not.toThrow();
  });

  it("is decoded where it holds as much as is allowed", () => {
    const attributes = Object.fromEntries(Array.from({ length: 4_000 }, (_, i) => [`k${i}`, i]));
    const records = Array.from({ length: 50 }, () => ({ entry: { actor: "a", action: "b", attributes } }));
    const message = create(AuditServiceAppendRequestSchema, { records });
    const bytes = toBinary(AuditServiceAppendRequestSchema, message);
    expect(bytes.length).toBeGreaterThan(2 * MIB);
    expect(decode(AuditServiceAppendRequestSchema, bytes)).toEqual(message);
    expect(() => refuseCrowdedJson(toJsonString(AuditServiceAppendRequestSchema, message))).not.toThrow();
  });

  it("is left to the decoder where its bytes are no message", () => {
    const padding = within(15, Buffer.alloc(MIB));
    const outcome = (work: () => unknown) => {
      try {
        return { message: work() };
      } catch (error) {
        return { failed: String(error) };
      }
    };
    const property = fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const whole = Buffer.concat([padding, bytes]);
      const desc = AuditServiceAppendRequestSchema;
      expect(outcome(() => decode(desc, whole))).toEqual(outcome(() => fromBinary(desc, whole)));
    });
    fc.assert(property, { numRuns: 100 });
  });
});
