import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { CacheRecord } from "../../src/cache/record.ts";
import { encodeGet, encodeGetMany, encodeSet, sizeOfResult } from "../../src/cache/wire.ts";
import {
  CacheServiceGetManyResponseSchema,
  CacheServiceGetResponseSchema,
  CacheServiceSetResponseSchema,
  GetResultSchema,
} from "../../src/gen/holdfast/v1/cache_pb.js";

const text = fc.string({ unit: "grapheme", maxLength: 300 });
const time = fc.integer({ min: 0, max: 4_000_000_000_000 });
const version = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

const record: fc.Arbitrary<CacheRecord> = fc.record({
  version,
  deleted: fc.constant(false),
  value: fc.record({ data: fc.oneof(text, fc.uint8Array({ maxLength: 400 })), contentType: text }),
  createdAt: time,
  expiresAt: fc.option(time, { nil: undefined }),
  staleUntil: fc.constant(undefined),
  tags: fc.array(text, { maxLength: 5 }),
  stamps: fc.constant([1]),
});
const fields = fc.record({
  outcome: fc.integer({ min: 0, max: 3 }),
  key: text,
  record: fc.option(record, { nil: undefined }),
});

/** The same fields as the generated code takes them. */
function initOf({ outcome, key, record: from }: { outcome: number; key: string; record: CacheRecord | undefined }) {
  if (from === undefined) return { outcome };
  const { data, contentType } = from.value;
  const kind =
    typeof data === "string"
      ? { case: "text" as const, value: data }
      : { case: "raw" as const, value: new Uint8Array(data) };
  return {
    outcome,
    entry: {
      key,
      value: { kind, contentType },
      version: BigInt(from.version),
      tags: [...from.tags],
      ...(from.expiresAt === undefined ? {} : { expireTime: timestampFromMs(from.expiresAt) }),
    },
  };
}

const bytes = (encoded: Uint8Array) => Buffer.from(encoded).toString("hex");

describe("replies written straight into protobuf binary", () => {
  it("are byte for byte what the generated code writes for a Get", () => {
    fc.assert(
      fc.property(
        fields,
        fc.option(fc.record({ token: text, expiresAt: time }), { nil: undefined }),
        (result, lease) => {
          const init = {
            ...initOf(result),
            ...(lease && { lease: { token: lease.token, expireTime: timestampFromMs(lease.expiresAt) } }),
          };
          const expected = toBinary(CacheServiceGetResponseSchema, create(CacheServiceGetResponseSchema, init));
          expect(bytes(encodeGet(result, lease))).toBe(bytes(expected));
        },
      ),
    );
  });

  it("are byte for byte what the generated code writes for a GetMany, refused keys included", () => {
    const refused = create(GetResultSchema, { error: { code: "INVALID_ARGUMENT", field: "key" } });
    fc.assert(
      fc.property(fc.array(fc.option(fields, { nil: undefined }), { maxLength: 20 }), (results) => {
        const expected = create(CacheServiceGetManyResponseSchema, {
          results: results.map((result) => (result === undefined ? refused : initOf(result))),
        });
        const encoded = encodeGetMany(results.map((result) => result ?? toBinary(GetResultSchema, refused)));
        expect(bytes(encoded)).toBe(bytes(toBinary(CacheServiceGetManyResponseSchema, expected)));
      }),
    );
  });

  it("are byte for byte what the generated code writes for a Set", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 4 }),
        version,
        fc.option(time, { nil: undefined }),
        (outcome, at, expires) => {
          const expected = create(CacheServiceSetResponseSchema, {
            outcome,
            version: BigInt(at),
            ...(expires === undefined ? {} : { expireTime: timestampFromMs(expires) }),
          });
          expect(bytes(encodeSet(outcome, at, expires))).toBe(bytes(toBinary(CacheServiceSetResponseSchema, expected)));
        },
      ),
    );
  });

  it("are as long as they are said to be before they are written", () => {
    fc.assert(
      fc.property(fields, (result) => {
        expect(sizeOfResult(result)).toBe(encodeGetMany([result]).length);
      }),
    );
  });

  it("hold a value of the largest size", () => {
    const large: CacheRecord = {
      version: 7,
      deleted: false,
      value: { data: Buffer.alloc(4 * 1024 * 1024, 1), contentType: "" },
      createdAt: 0,
      expiresAt: undefined,
      staleUntil: undefined,
      tags: [],
      stamps: [1],
    };
    const decoded = fromBinary(
      CacheServiceGetResponseSchema,
      encodeGet({ outcome: 1, key: "k", record: large }, undefined),
    );
    expect(decoded.entry?.value?.kind.value?.length).toBe(4 * 1024 * 1024);
  });
});
