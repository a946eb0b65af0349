import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { expect, it } from "vitest";
import type { Claim } from "../../src/dedup/record/claim.ts";
import { claimBytes, duplicateBytes } from "../../src/dedup/rpc/claim-bytes.ts";
import { ValueSchema } from "../../src/gen/holdfast/v1/cache_pb.js";
import { DedupOutcome, DedupServiceClaimResponseSchema as Reply } from "../../src/gen/holdfast/v1/dedup_pb.js";
import { idOf } from "./truths.ts";

const time = fc.integer({ min: 0, max: 253_402_300_799_999 });
/** No lease is longer than a day. */
const left = fc.integer({ min: -86_400_000, max: 86_400_000 });
const claims: fc.Arbitrary<Claim> = fc.record({
  id: fc.constant(idOf("a")),
  token: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  status: fc.constantFrom("in_progress", "completed"),
  owner: fc.string({ unit: "grapheme", maxLength: 60 }),
  attempt: fc.integer({ min: 1, max: 2 ** 31 }),
  ...{ ttlMs: time, claimMs: time, leaseEndMs: time, completeMs: fc.option(time, { nil: undefined }), expireMs: time },
  request: fc.constant(undefined),
  ...{ atOnce: fc.boolean(), resultBytes: fc.constant(undefined), copyable: fc.boolean() },
});

it("replies that are written by hand are those that the generated code would have written", () => {
  fc.assert(
    fc.property(claims, fc.boolean(), left, fc.option(fc.string()), (claim, isFirst, leftMs, text) => {
      const nowMs = claim.leaseEndMs - leftMs;
      const { attempt, owner, token, leaseEndMs, completeMs } = claim;
      const common = { attempt, owner, expireTime: timestampFromMs(claim.expireMs) };
      const lease = claim.status === "in_progress" && {
        leaseExpireTime: timestampFromMs(leaseEndMs),
        leaseRemaining: durationFromMs(Math.max(0, leaseEndMs - nowMs)),
      };
      const outcome = isFirst ? DedupOutcome.FIRST : DedupOutcome.IN_PROGRESS;
      expect(fromBinary(Reply, claimBytes(claim, isFirst, nowMs))).toEqual(
        create(Reply, { ...common, ...lease, outcome, ...(isFirst && { claimToken: BigInt(token) }) }),
      );
      const result = text === null ? undefined : create(ValueSchema, { kind: { case: "text", value: text } });
      expect(fromBinary(Reply, duplicateBytes(claim, result && toBinary(ValueSchema, result)))).toEqual(
        create(Reply, {
          ...{ ...common, outcome: DedupOutcome.DUPLICATE },
          ...(completeMs !== undefined && { completeTime: timestampFromMs(completeMs) }),
          ...(result && { result }),
        }),
      );
    }),
  );
});
