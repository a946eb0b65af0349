import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, it } from "vitest";
import {
  LockAuthority,
  LockServiceAcquireRequestSchema,
  LockServiceAcquireResponseSchema,
  LockServiceReleaseRequestSchema,
  LockServiceReleaseResponseSchema,
  LockServiceRenewRequestSchema,
  LockServiceRenewResponseSchema,
} from "../../src/gen/holdfast/v1/lock_pb.js";
import { decode } from "../../src/infra/decode.ts";
import type { Lease } from "../../src/lock/authority/authority.ts";
import { duration, lockIfAny } from "../../src/lock/rpc/replies.ts";
import { decodeAcquire, decodeRelease, decodeRenew, encodeGrant, encodeReleased } from "../../src/lock/rpc/wire.ts";

const text = fc.oneof(fc.string({ unit: "grapheme", maxLength: 40 }), fc.constant("a\0b"));
const token = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const time = fc.double({ min: 0, max: 9e12, noNaN: true });
const lease: fc.Arbitrary<Lease> = fc.record({
  grant: fc.record({
    ...{ name: text, token, owner: text, purpose: text, caller: text, instanceId: text, streamId: text },
    ...{ requestId: text, requestMeaning: text, ttlMs: token, acquireMs: time, expireMs: time },
    ...{ renewals: fc.nat(), end: fc.constant("" as const), endMs: fc.constant(0) },
  }),
  remainingMs: time,
});
const authority = fc.constantFrom(LockAuthority.SQLITE, LockAuthority.REDIS, LockAuthority.POSTGRES);
const validForMs = fc.option(fc.double({ min: -10, max: 9e9, noNaN: true }), { nil: undefined });
const maybeLease = fc.option(lease, { nil: undefined });

it("replies to Acquire, Renew and Release are what the generated code would have written", () => {
  fc.assert(
    fc.property(fc.nat(2), maybeLease, validForMs, maybeLease, authority, (outcome, lock, validFor, holder, kind) => {
      const fields = {
        lock: lockIfAny(lock, kind),
        validFor: validFor === undefined ? undefined : duration(validFor),
        holder: lockIfAny(holder, kind),
        authority: kind,
      };
      const grant = { lock, validForMs: validFor, holder, authority: kind };
      expect(encodeGrant({ outcome, ...grant })).toEqual(
        written(LockServiceAcquireResponseSchema, { outcome, ...fields }),
      );
      const renewed = outcome > 0;
      expect(encodeGrant({ outcome: renewed ? 1 : 0, ...grant })).toEqual(
        written(LockServiceRenewResponseSchema, { renewed, ...fields }),
      );
      expect(encodeReleased(renewed, kind)).toEqual(
        written(LockServiceReleaseResponseSchema, { released: renewed, authority: kind }),
      );
    }),
  );
});

const anyDuration = fc.option(
  fc.record({
    seconds: fc.oneof(fc.bigInt(0n, 90_000n), fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n)),
    nanos: fc.oneof(fc.constant(0), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })),
  }),
  { nil: undefined },
);
const anyToken = fc.oneof(fc.bigInt(0n, 2n ** 53n), fc.bigInt(0n, 2n ** 64n - 1n));
const damage = fc.option(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { nil: undefined });

it("requests to Acquire are read as the generated code reads them, also when they are damaged", () => {
  const request = fc.record({
    ...{ name: text, ttl: anyDuration, waitTimeout: anyDuration, owner: text, purpose: text, requestId: text },
  });
  fc.assert(
    fc.property(request, damage, ({ ttl, waitTimeout, ...rest }, harm) => {
      const asked = { ...rest, ...(ttl && { ttl }), ...(waitTimeout && { waitTimeout }) };
      expectSame(LockServiceAcquireRequestSchema, decodeAcquire, asked, harm);
    }),
    { numRuns: 1_000 },
  );
});

it("requests to Renew and Release are read so too", () => {
  fc.assert(
    fc.property(text, anyToken, anyDuration, damage, (name, fencingToken, ttl, harm) => {
      expectSame(LockServiceReleaseRequestSchema, decodeRelease, { name, fencingToken }, harm);
      const renewal = { name, fencingToken, ...(ttl && { ttl }) };
      expectSame(LockServiceRenewRequestSchema, decodeRenew, renewal, harm);
    }),
    { numRuns: 1_000 },
  );
});

it("what comes twice counts as the generated code has it", () => {
  const [first, second] = [
    written(LockServiceAcquireRequestSchema, { name: "a", ttl: { seconds: 1n, nanos: 7 } }),
    written(LockServiceAcquireRequestSchema, { name: "b", ttl: { seconds: 2n } }),
  ];
  const both = Buffer.concat([first, second]);
  expect(decodeAcquire(both)).toMatchObject({ name: "b", ttl: { seconds: 2n, nanos: 7 } });
});

function written<Desc extends DescMessage>(schema: Desc, fields: MessageInitShape<Desc>): Buffer {
  return Buffer.from(toBinary(schema, create(schema, fields)));
}

function expectSame<Desc extends DescMessage>(
  schema: Desc,
  read: (bytes: Uint8Array) => object,
  fields: MessageInitShape<Desc>,
  harm: readonly [number, number] | undefined,
): void {
  const bytes = written(schema, fields);
  if (harm !== undefined && bytes.length > 0) bytes[harm[0] % bytes.length] = harm[1];
  expect(outcomeOf(() => read(bytes))).toEqual(outcomeOf(() => decode(schema, bytes)));
}

/** What comes of reading, as JSON would show it. */
function outcomeOf(read: () => object): unknown {
  try {
    return JSON.parse(JSON.stringify(read(), (_, value: unknown) => (typeof value === "bigint" ? `${value}n` : value)));
  } catch (error) {
    if (error instanceof SyntaxError) throw error;
    return "it cannot be read";
  }
}
