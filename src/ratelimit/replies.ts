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
import type { Ask } from "./counters.ts";
import type { Basis, Status } from "./limiter.ts";
import type { Algorithm, Fallback, Rule } from "./rule.ts";

const BASES: Readonly<Record<Basis, RateLimitBasis>> = {
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
/** The end of the year 9999, and ten thousand years: what a Timestamp and a Duration hold. */
const LAST_US = 253_402_300_799 * SECOND_US;
const LONGEST_US = 315_576_000_000 * SECOND_US;

export function timestampOf(us: number): Timestamp {
  return create(TimestampSchema, secondsAndNanos(Math.min(us, LAST_US)));
}

/** Undefined for what never comes. */
export function durationOf(us: number): Duration | undefined {
  return us === Number.POSITIVE_INFINITY
    ? undefined
    : create(DurationSchema, secondsAndNanos(Math.min(us, LONGEST_US)));
}

function secondsAndNanos(us: number): { seconds: bigint; nanos: number } {
  return { seconds: BigInt(Math.floor(us / SECOND_US)), nanos: (us % SECOND_US) * 1_000 };
}

export function statusesOf(asks: readonly Ask[], statuses: readonly Status[]): RateLimitStatus[] {
  return statuses.map((status, i) => statusOf(asks[i], status));
}

function statusOf(ask: Ask | undefined, status: Status): RateLimitStatus {
  const { waitUs, resetAt, basis, shadow } = status;
  const retryAfter = waitUs === 0 ? undefined : durationOf(waitUs);
  return create(RateLimitStatusSchema, {
    rule: ask?.rule.name ?? "",
    key: ask?.key ?? "",
    allowed: waitUs === 0,
    limit: BigInt(status.limit),
    remaining: BigInt(status.remaining),
    overdrawn: BigInt(status.overdrawn),
    ...(resetAt !== undefined && { resetTime: timestampOf(resetAt) }),
    ...(retryAfter !== undefined && { retryAfter }),
    shadow,
    basis: BASES[basis],
  });
}

/** Which rule denied, and until when all of them would. Nothing when it was allowed. */
export function denialOf(
  asks: readonly Ask[],
  { allowed, statuses }: { readonly allowed: boolean; readonly statuses: readonly Status[] },
): { deniedBy?: string; retryAfter?: Duration } {
  if (allowed) return {};
  let by = -1;
  let longest = 0;
  for (const [i, { shadow, waitUs }] of statuses.entries()) {
    if (shadow || waitUs <= longest) continue;
    by = i;
    longest = waitUs;
  }
  const retryAfter = durationOf(longest);
  return { deniedBy: asks[by]?.rule.name ?? "", ...(retryAfter !== undefined && { retryAfter }) };
}

export function isDegraded(statuses: readonly Status[]): boolean {
  return statuses.some(({ basis }) => basis !== "shared");
}

export function ruleMessage(rule: Rule): RateLimitRule {
  const { name, algorithm, limit, periodUs, burst, fallback, shadow } = rule;
  const period = durationOf(periodUs);
  return create(RateLimitRuleSchema, {
    name,
    algorithm: ALGORITHMS[algorithm],
    limit: BigInt(limit),
    ...(algorithm !== "concurrency" && period !== undefined && { period }),
    burst: algorithm === "token_bucket" ? BigInt(burst) : 0n,
    fallback: FALLBACKS[fallback],
    shadow,
  });
}
