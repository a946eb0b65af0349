import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  RateLimitBasis,
  RateLimitServiceCheckRequestSchema,
  RateLimitServiceCheckResponseSchema,
} from "../src/gen/holdfast/v1/rate_limit_pb.js";
import type { LoadOptions } from "./h2-load.ts";

/** The messages of calls about rate limits: one limit each, of a thousand clients in turn. */
export const RULE = "client";
const CLIENTS = 1_000;

const clientAt = (number: number) => `client-${String(number).padStart(6, "0")}`;

export function checkLoad(): Pick<LoadOptions, "bodies"> {
  const schema = RateLimitServiceCheckRequestSchema;
  return {
    bodies: Array.from({ length: CLIENTS }, (_, number) => {
      const descriptors = [{ rule: { case: "ruleName" as const, value: RULE }, key: clientAt(number) }];
      return toBinary(schema, create(schema, { descriptors }));
    }),
  };
}

/** What one of them answers. */
export function checkReply() {
  const time = timestampFromMs(1_795_000_000_123);
  return create(RateLimitServiceCheckResponseSchema, {
    allowed: true,
    chargeTime: time,
    statuses: [
      {
        ...{ rule: RULE, key: clientAt(0), allowed: true, limit: 100_000n, remaining: 99_999n },
        ...{ resetTime: time, basis: RateLimitBasis.SHARED },
      },
    ],
  });
}
