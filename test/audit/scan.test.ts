import { create, fromBinary, type JsonObject, type JsonValue, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { draft, isRefused } from "../../src/audit/record/draft.ts";
import { keyOf } from "../../src/audit/record/keys.ts";
import { open, sameContent, seal, unseal } from "../../src/audit/record/leaf.ts";
import type { Sealed } from "../../src/audit/record/record.ts";
import { decodeIngest, isScanned } from "../../src/audit/record/requests.ts";
import {
  type AuditAppend,
  AuditEntrySchema,
  type AuditServiceIngestRequest,
  AuditServiceIngestRequestSchema,
} from "../../src/gen/holdfast/v1/audit_pb.js";

const ACCEPT_US = 1_700_000_000_123_456;

const text = (most: number) => fc.oneof(fc.string({ unit: "binary", maxLength: most }), fc.string({ maxLength: most }));
const json: fc.Arbitrary<JsonValue> = fc.letrec<{ value: JsonValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constant(null),
    fc.boolean(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    text(20),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(text(8), tie("value"), { maxKeys: 4 }),
  ),
})).value;
const struct: fc.Arbitrary<JsonObject> = fc.dictionary(text(8), json, { maxKeys: 5 });
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });

const entry = fc
  .record({
    occurTime: optional(
      fc.record({
        seconds: fc.bigInt({ min: -9_000_000_000n, max: 8_000_000_000n }),
        nanos: fc.integer({ min: -1, max: 1_000_000_000 }),
      }),
    ),
    actor: text(260),
    action: text(20),
    resource: optional(fc.record({ type: text(10), id: text(10) })),
    outcome: fc.integer({ min: 0, max: 5 }),
    service: text(10),
    context: optional(fc.record({ ipAddress: text(66), userAgent: text(20), traceId: text(20), sessionId: text(9) })),
    status: fc.integer({ min: 0, max: 5 }),
    attributes: optional(struct),
    before: optional(struct),
    after: optional(struct),
  })
  .map((init) => create(AuditEntrySchema, init as Parameters<typeof create<typeof AuditEntrySchema>>[1]));

const batch = fc
  .array(fc.record({ sequence: fc.bigInt({ min: 0n, max: 2n ** 54n }), entry }), { minLength: 1, maxLength: 3 })
  .map((records) =>
    create(AuditServiceIngestRequestSchema, { message: { case: "batch", value: { batch: 7n, records } } }),
  );

function recordsOf(request: AuditServiceIngestRequest): readonly AuditAppend[] {
  return request.message.case === "batch" ? request.message.value.records : [];
}

/** What a record comes to: the sealed record without its bytes, or why it is refused. */
function outcomeOf(append: AuditAppend): unknown {
  const made = draft("producer", append, ACCEPT_US);
  if (isRefused(made)) return { refused: made.refused.message };
  return { ...inWords(made), opened: open(made.leaf) };
}

/** What a record says, however its texts are kept. */
function inWords({ texts, leaf, ...rest }: Sealed) {
  const { entry } = open(leaf);
  const { resource, context } = entry;
  const maybe = (...parts: readonly (string | undefined)[]) => {
    const given = parts.filter((part) => part !== undefined && part !== "");
    return given.length === 0 ? undefined : keyOf(...given.map(String));
  };
  expect(texts.action).toBe(entry.action);
  expect(texts.keys()).toEqual({
    actor: keyOf(entry.actor),
    action: keyOf(entry.action),
    resource: maybe(resource?.type, resource?.id),
    resourceType: maybe(resource?.type),
    trace: maybe(context?.traceId),
    service: maybe(entry.service),
  });
  return rest;
}

function slowly(bytes: Uint8Array): AuditServiceIngestRequest | undefined {
  try {
    return fromBinary(AuditServiceIngestRequestSchema, bytes);
  } catch {
    return undefined;
  }
}

describe("a batch that is read as bytes", () => {
  it("comes to what it comes to when it is decoded", () => {
    fc.assert(
      fc.property(batch, (message) => {
        const bytes = toBinary(AuditServiceIngestRequestSchema, message);
        expect(recordsOf(decodeIngest(bytes)).map(outcomeOf)).toEqual(recordsOf(message).map(outcomeOf));
      }),
      { numRuns: 2_000 },
    );
  });

  it("is never let through when decoding or checking would refuse it, however its bytes were changed", () => {
    const change = fc.record({ at: fc.nat(), to: fc.integer({ min: 0, max: 255 }) });
    fc.assert(
      fc.property(batch, fc.array(change, { minLength: 1, maxLength: 3 }), (message, changes) => {
        const bytes = toBinary(AuditServiceIngestRequestSchema, message);
        for (const { at, to } of changes) bytes[at % bytes.length] = to;
        const wanted = slowly(bytes);
        if (wanted === undefined) expect(() => decodeIngest(bytes)).toThrow();
        else expect(recordsOf(decodeIngest(bytes)).map(outcomeOf)).toEqual(recordsOf(wanted).map(outcomeOf));
      }),
      { numRuns: 5_000 },
    );
  });

  it("is read without decoding it when it is written in the usual way", () => {
    const usual = create(AuditEntrySchema, {
      occurTime: { seconds: 1_700_000_000n, nanos: 5_000 },
      actor: "user:42",
      action: "memory.update",
      resource: { type: "memory", id: "m1" },
      context: { ipAddress: "::1", traceId: "t" },
      status: 2,
      attributes: { text: "ü", number: 1.5, nested: { list: [1, null, true, { a: "b" }] } },
    });
    const records = [{ sequence: 5n, entry: usual }];
    const bytes = toBinary(
      AuditServiceIngestRequestSchema,
      create(AuditServiceIngestRequestSchema, { message: { case: "batch", value: { batch: 1n, records } } }),
    );
    expect(recordsOf(decodeIngest(bytes)).map(isScanned)).toEqual([true]);
  });
});

describe("a leaf", () => {
  it("says the same when it is read again", () => {
    fc.assert(
      fc.property(batch, fc.integer({ min: 0, max: 4_000_000_000_000_000 }), (message, acceptUs) => {
        for (const append of recordsOf(message)) {
          const made = draft("orders-1", append, acceptUs);
          if (isRefused(made)) continue;
          const again = unseal(made.leaf);
          expect(inWords(again)).toEqual(inWords(made));
          expect(again.leaf).toBe(made.leaf);
        }
      }),
    );
  });

  it("is refused when it is damaged beyond reading", () => {
    const { leaf } = sealed({ actor: "a", action: "b" });
    for (let length = 0; length < leaf.length; length++) {
      expect(() => unseal(leaf.subarray(0, length)), `${length} bytes`).toThrow();
    }
  });

  it("has the same content as another that differs in when it was accepted and how its maps are ordered", () => {
    const one = sealed({ actor: "a", action: "b", attributes: { x: 1, y: 2 } }, 1_000);
    const same = sealed({ actor: "a", action: "b", attributes: { y: 2, x: 1 } }, 2_000);
    const other = sealed({ actor: "a", action: "b", attributes: { x: 1, y: 3 } }, 1_000);
    expect(Buffer.from(one.leaf).equals(same.leaf)).toBe(false);
    expect(sameContent(one.leaf, same.leaf)).toBe(true);
    expect(sameContent(one.leaf, other.leaf)).toBe(false);
  });
});

function sealed(init: { actor: string; action: string; attributes?: JsonObject }, acceptUs = ACCEPT_US): Sealed {
  return seal({ producer: "p", sequence: 1 }, acceptUs, create(AuditEntrySchema, init));
}
