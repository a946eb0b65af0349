import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  RateLimitAlgorithm,
  RateLimitBasis,
  RateLimitFallback,
  type RateLimitRule,
  RateLimitRuleSchema,
  type RateLimitStatus,
  RateLimitStatusSchema,
} from "../gen/holdfast/v1/rate_limit_pb.js";
import type { Ask, Basis, Standing, Verdict } from "./counters.ts";
import type { Algorithm, Fallback, Rule } from "./rule.ts";

export const BASES: Readonly<Record<Basis, RateLimitBasis>> = {
  shared: RateLimitBasis.SHARED,
  local_share: RateLimitBasis.LOCAL_SHARE,
  open: RateLimitBasis.FALLBACK_OPEN,
  closed: RateLimitBasis.FALLBACK_CLOSED,
};
const ALGORITHMS: Readonly<Record<Algorithm, RateLimitAlgorithm>> = {
  fixed_window: RateLimitAlgorithm.FIXED_WINDOW,
  sliding_window: RateLimitAlgorithm.SLIDING_WINDOW,
  token_bucket: RateLimitAlgorithm.TOKEN_BUCKET,
  concurrency: RateLimitAlgorithm.CONCURRENCY,
};
const FALLBACKS: Readonly<Record<Fallback, RateLimitFallback>> = {
  local_share: RateLimitFallback.LOCAL_SHARE,
  open: RateLimitFallback.OPEN,
  closed: RateLimitFallback.CLOSED,
};

const SECOND_US = 1_000_000;

export function timestampOf(us: number): Timestamp {
  return create(TimestampSchema, secondsAndNanos(us));
}

function durationOf(us: number): Duration {
  return create(DurationSchema, secondsAndNanos(us));
}

function secondsAndNanos(us: number): { seconds: bigint; nanos: number } {
  return { seconds: BigInt(Math.floor(us / SECOND_US)), nanos: (us % SECOND_US) * 1_000 };
}

export function statusesOf(asks: readonly Ask[], standings: readonly Standing[]): RateLimitStatus[] {
  return standings.map((standing, i) => statusOf(asks[i], standing));
}

function statusOf(ask: Ask | undefined, standing: Standing): RateLimitStatus {
  const { waitUs, resetAt, basis, shadow } = standing;
  const comes = waitUs > 0 && waitUs !== Number.POSITIVE_INFINITY;
  return create(RateLimitStatusSchema, {
    rule: ask?.rule.name ?? "",
    key: ask?.key ?? "",
    allowed: waitUs === 0,
    limit: BigInt(standing.limit),
    remaining: BigInt(standing.remaining),
    overdrawn: BigInt(standing.overdrawn),
    ...(resetAt !== undefined && { resetTime: timestampOf(resetAt) }),
    ...(comes && { retryAfter: durationOf(waitUs) }),
    shadow,
    basis: BASES[basis],
  });
}

/** Who denied, and for how long. */
export interface Denial {
  /** Empty when it was allowed. */
  readonly deniedBy: string;
  /** Microseconds until all of them would allow it; undefined for never, and when it was allowed. */
  readonly retryAfter: number | undefined;
}

const NO_DENIAL: Denial = { deniedBy: "", retryAfter: undefined };

export function denialOf(asks: readonly Ask[], { allowed, standings }: Pick<Verdict, "allowed" | "standings">): Denial {
  if (allowed) return NO_DENIAL;
  let by = -1;
  let longest = 0;
  for (const [i, { shadow, waitUs }] of standings.entries()) {
    if (shadow || waitUs <= longest) continue;
    by = i;
    longest = waitUs;
  }
  return {
    deniedBy: asks[by]?.rule.name ?? "",
    retryAfter: longest === Number.POSITIVE_INFINITY ? undefined : longest,
  };
}

/** The same as fields of a message. */
export function denialFields(asks: readonly Ask[], verdict: Pick<Verdict, "allowed" | "standings">) {
  const { deniedBy, retryAfter } = denialOf(asks, verdict);
  return { deniedBy, ...(retryAfter !== undefined && { retryAfter: durationOf(retryAfter) }) };
}

export function isDegraded(standings: readonly Standing[]): boolean {
  return standings.some(({ basis }) => basis !== "shared");
}

export function ruleMessage(rule: Rule): RateLimitRule {
  const { name, algorithm, limit, periodUs, burst, fallback, shadow } = rule;
  return create(RateLimitRuleSchema, {
    name,
    algorithm: ALGORITHMS[algorithm],
    limit: BigInt(limit),
    ...(algorithm !== "concurrency" && { period: durationOf(periodUs) }),
    burst: algorithm === "token_bucket" ? BigInt(burst) : 0n,
    fallback: FALLBACKS[fallback],
    shadow,
  });
}
