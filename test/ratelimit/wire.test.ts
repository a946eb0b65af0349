import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, it } from "vitest";
import {
  RateLimitDescriptorSchema,
  RateLimitRuleSchema,
  RateLimitServiceCheckRequestSchema,
  RateLimitServiceCheckResponseSchema,
} from "../../src/gen/holdfast/v1/rate_limit_pb.js";
import { decode } from "../../src/infra/decode.ts";
import type { Basis, Standing } from "../../src/ratelimit/counters.ts";
import { denialFields, denialOf, isDegraded, statusesOf, timestampOf } from "../../src/ratelimit/replies.ts";
import { decodeCheck, encodeCheck } from "../../src/ratelimit/wire.ts";
import { ruleOf } from "./rules.ts";

const text = fc.string({ unit: "grapheme", maxLength: 40 });
const count = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const standing: fc.Arbitrary<Standing> = fc.record({
  basis: fc.constantFrom<Basis>("shared", "local_share", "open", "closed"),
  limit: count,
  shadow: fc.boolean(),
  waitUs: fc.oneof(fc.constant(0), fc.constant(Number.POSITIVE_INFINITY), count),
  remaining: count,
  overdrawn: count,
  resetAt: fc.option(count, { nil: undefined }),
});
const limits = fc.array(fc.record({ name: fc.stringMatching(/^[a-z:]{1,20}$/), key: text, standing }), {
  maxLength: 4,
});

it("replies to Check are what the generated code would have written", () => {
  fc.assert(
    fc.property(limits, count, fc.boolean(), (all, at, allowed) => {
      const asks = all.map(({ name, key }) => ({ rule: ruleOf("fixed_window", 1, { name }), key, cost: 1 }));
      const verdict = { at, allowed, standings: all.map((one) => one.standing) };
      const degraded = isDegraded(verdict.standings);
      const written = encodeCheck(asks, { verdict, ...denialOf(asks, verdict), degraded });
      const message = create(RateLimitServiceCheckResponseSchema, {
        allowed,
        statuses: statusesOf(asks, verdict.standings),
        ...denialFields(asks, verdict),
        degraded,
        chargeTime: timestampOf(at),
      });
      expect(written).toEqual(Buffer.from(toBinary(RateLimitServiceCheckResponseSchema, message)));
    }),
  );
});

const inline = fc.record({ name: text, limit: fc.bigInt(0n, 99n) }).map((one) => create(RateLimitRuleSchema, one));
const rule = fc.oneof(
  { weight: 4, arbitrary: fc.record({ case: fc.constant("ruleName" as const), value: text }) },
  {
    weight: 1,
    arbitrary: fc.record({
      case: fc.constant("inlineRule" as const),
      value: inline,
    }),
  },
  { weight: 1, arbitrary: fc.constant({ case: undefined }) },
);
const request = fc.record({
  namespace: text,
  descriptors: fc.array(
    fc.record({ rule, key: text, cost: fc.option(fc.bigInt(0n, 2n ** 64n - 1n), { nil: undefined }) }),
    { maxLength: 4 },
  ),
  charge: fc.integer({ min: -1, max: 300 }),
  shadow: fc.boolean(),
  requestId: text,
});

it("requests to Check are read as the generated code reads them, also when they are damaged", () => {
  const schema = RateLimitServiceCheckRequestSchema;
  fc.assert(
    fc.property(request, fc.option(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }))), (asked, damage) => {
      const bytes = toBinary(
        schema,
        create(schema, {
          ...asked,
          descriptors: asked.descriptors.map(({ cost, rule: given, key }) =>
            create(RateLimitDescriptorSchema, { rule: given, key, ...(cost !== undefined && { cost }) }),
          ),
        }),
      );
      if (damage !== null && bytes.length > 0) bytes[damage[0] % bytes.length] = damage[1];
      expect(outcomeOf(() => decodeCheck(bytes))).toEqual(outcomeOf(() => decode(schema, bytes)));
    }),
    { numRuns: 1_000 },
  );
});

/** What comes of reading, as JSON would show it. */
function outcomeOf(read: () => object): unknown {
  try {
    return JSON.parse(JSON.stringify(read(), (_, value: unknown) => (typeof value === "bigint" ? `${value}n` : value)));
  } catch (error) {
    if (error instanceof SyntaxError) throw error;
    return "it cannot be read";
  }
}
