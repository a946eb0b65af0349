import type { Timestamp } from "@bufbuild/protobuf/wkt";
import {
  RateLimitAlgorithm,
  type RateLimitDescriptor,
  RateLimitFallback,
  type RateLimitRule,
} from "../gen/holdfast/v1/rate_limit_pb.js";
import type { Caller } from "../infra/call.ts";
import { Fields, textFault } from "../infra/fields.ts";
import { type Ask, counterName } from "./counters.ts";
import { InlineScopeError, RuleKindError, UnknownRuleError } from "./failures.ts";
import { type Algorithm, type Fallback, MOST_UNITS, PERIOD_MS, RULE_NAME, type Rule } from "./rule.ts";
import type { RuleBook } from "./rule-book.ts";

export const LIMITS = { descriptors: 16, keyBytes: 1_024, leaseBytes: 4_096 } as const;
export const LEASE_MS = { least: 1_000, most: 86_400_000, usual: 60_000 } as const;
const INLINE_SCOPE = "ratelimit:inline";
const NAMESPACE = /^[A-Za-z0-9._:-]{1,128}$/;
const MOST = BigInt(MOST_UNITS);
const NAME_WANTED = "must be 1 to 128 letters, digits or any of . _ : -";

export const ALGORITHMS: ReadonlyMap<RateLimitAlgorithm, Algorithm> = new Map([
  [RateLimitAlgorithm.FIXED_WINDOW, "fixed_window"],
  [RateLimitAlgorithm.SLIDING_WINDOW, "sliding_window"],
  [RateLimitAlgorithm.TOKEN_BUCKET, "token_bucket"],
  [RateLimitAlgorithm.CONCURRENCY, "concurrency"],
]);
export const FALLBACKS: ReadonlyMap<RateLimitFallback, Fallback> = new Map([
  [RateLimitFallback.UNSPECIFIED, "local_share"],
  [RateLimitFallback.LOCAL_SHARE, "local_share"],
  [RateLimitFallback.OPEN, "open"],
  [RateLimitFallback.CLOSED, "closed"],
]);

/** Which rules an RPC takes, and whether a cost may be 0. */
export interface Wanted {
  readonly kind: "counting" | "concurrency" | "any";
  readonly zero: boolean;
}

/** What is wrong with a request about limits. */
export class LimitFields extends Fields {
  namespace(value: string): string {
    if (value === "") return "default";
    if (!NAMESPACE.test(value)) this.refuse("namespace", NAME_WANTED);
    return value;
  }

  /** Unset or empty where it may be. */
  time(field: string, value: Timestamp | undefined): number | undefined {
    if (value === undefined) return undefined;
    const { seconds, nanos } = value;
    const within = seconds >= -62_135_596_800n && seconds <= 253_402_300_799n;
    if (!within || nanos < 0 || nanos > 999_999_999) {
      this.refuse(field, "is not a time from the year 1 to the year 9999");
      return undefined;
    }
    return Number(seconds) * 1_000_000 + Math.floor(nanos / 1_000);
  }
}

/**
 * What the descriptors ask for. Names every field that is wrong first, then says what the caller may not do, then which rule there
 * is not: `fields` has been asked for all else by then.
 */
export function asksOf(
  fields: LimitFields,
  descriptors: readonly RateLimitDescriptor[],
  wanted: Wanted,
  rules: Pick<RuleBook, "find" | "all">,
  caller: Caller,
): Ask[] {
  fields.count("descriptors", descriptors.length, LIMITS.descriptors);
  const asks: (Ask | undefined)[] = [];
  let hasInline = false;
  for (let i = 0; i < descriptors.length; i++) {
    const descriptor = descriptors[i];
    if (descriptor === undefined) continue;
    const ask = askOf(fields, i, descriptor, wanted.zero, rules);
    hasInline ||= ask?.rule.inline === true;
    asks.push(ask);
  }
  if (hasInline) refuseContradictions(fields, asks);
  fields.done();
  if (hasInline && !caller.hasScope(INLINE_SCOPE)) throw new InlineScopeError(caller.name, INLINE_SCOPE);
  return asks.map((ask, i) => {
    if (ask === undefined) {
      const names = rules.all.map(({ name }) => name);
      throw new UnknownRuleError(String(descriptors[i]?.rule.value), `descriptors[${i}].rule_name`, names);
    }
    const isConcurrency = ask.rule.algorithm === "concurrency";
    if (wanted.kind !== "any" && isConcurrency !== (wanted.kind === "concurrency")) {
      const name = ask.rule.inline ? "inline_rule" : "rule_name";
      throw new RuleKindError(ask.rule.name, `descriptors[${i}].${name}`, isConcurrency);
    }
    return ask;
  });
}

/** Undefined when no rule has the name. */
function askOf(
  fields: LimitFields,
  at: number,
  { rule, key, cost }: RateLimitDescriptor,
  mayBeZero: boolean,
  rules: Pick<RuleBook, "find">,
): Ask | undefined {
  // Names of fields are only made where one is wrong.
  const refuse = (field: string, what: string) => fields.refuse(`descriptors[${at}].${field}`, what);
  const fault = textFault(key, LIMITS.keyBytes);
  if (fault !== undefined) refuse("key", fault);
  if (cost !== undefined && cost > MOST) refuse("cost", `is ${cost}; the limit is ${MOST}`);
  if (cost === 0n && !mayBeZero) refuse("cost", "must not be 0");
  const units = cost === undefined ? 1 : Number(cost);
  switch (rule.case) {
    case undefined:
      refuse("rule", "is required: set rule_name or inline_rule");
      return undefined;
    case "ruleName": {
      const found = rules.find(rule.value);
      if (found === undefined && !RULE_NAME.test(rule.value)) refuse("rule_name", NAME_WANTED);
      return found && { rule: found, key, cost: units };
    }
    case "inlineRule":
      return { rule: inlineRule(fields, `descriptors[${at}].inline_rule`, rule.value), key, cost: units };
  }
}

function inlineRule(fields: LimitFields, at: string, rule: RateLimitRule): Rule {
  if (!RULE_NAME.test(rule.name)) fields.refuse(`${at}.name`, NAME_WANTED);
  const algorithm = ALGORITHMS.get(rule.algorithm);
  if (algorithm === undefined) fields.refuse(`${at}.algorithm`, "is required: one that this server knows");
  const fallback = FALLBACKS.get(rule.fallback);
  if (fallback === undefined) fields.refuse(`${at}.fallback`, "is not one that this server knows");
  if (rule.limit === 0n) fields.refuse(`${at}.limit`, "must be at least 1");
  else if (rule.limit > MOST) fields.refuse(`${at}.limit`, `is ${rule.limit}; the limit is ${MOST}`);
  if (rule.burst > MOST) fields.refuse(`${at}.burst`, `is ${rule.burst}; the limit is ${MOST}`);
  else if (rule.burst !== 0n && algorithm !== undefined && algorithm !== "token_bucket") {
    fields.refuse(`${at}.burst`, "must be 0 for a rule that is no TOKEN_BUCKET");
  }
  const limit = Number(rule.limit);
  const burst = Number(rule.burst);
  return {
    name: rule.name,
    algorithm: algorithm ?? "fixed_window",
    limit,
    periodUs: periodOf(fields, `${at}.period`, rule, algorithm) * 1_000,
    burst: burst === 0 ? limit : burst,
    fallback: fallback ?? "local_share",
    shadow: rule.shadow,
    inline: true,
  };
}

/** In milliseconds. */
function periodOf(
  fields: LimitFields,
  field: string,
  { period }: RateLimitRule,
  algorithm: Algorithm | undefined,
): number {
  if (algorithm === "concurrency") {
    if (period !== undefined) fields.refuse(field, "must be unset for CONCURRENCY");
    return 0;
  }
  if (period === undefined) {
    if (algorithm !== undefined) fields.refuse(field, "is required");
    return 1;
  }
  const ms = fields.duration(field, period, PERIOD_MS.most) ?? 1;
  const isShort = period.seconds === 0n && period.nanos > 0 && period.nanos < 1_000_000;
  if (isShort) fields.refuse(field, "must be at least 1 millisecond");
  return ms;
}

/** One counter cannot be counted in two ways by one call. */
function refuseContradictions(fields: LimitFields, asks: readonly (Ask | undefined)[]): void {
  const first = new Map<string, number>();
  for (const [i, ask] of asks.entries()) {
    if (!ask?.rule.inline) continue;
    const counter = counterName(ask.rule, ask.key);
    const before = first.get(counter);
    if (before === undefined) first.set(counter, i);
    else if (JSON.stringify(asks[before]?.rule) !== JSON.stringify(ask.rule)) {
      fields.refuse(`descriptors[${i}].inline_rule`, `differs from the rule of that name in descriptors[${before}]`);
    }
  }
}

/** What a request that names itself asks for, for telling it from another one. */
export function meaningOf(namespace: string, asks: readonly Ask[], more: readonly string[]): readonly string[] {
  const rule = ({ rule: one }: Ask) => (one.inline ? JSON.stringify(one) : one.name);
  return [namespace, ...more, ...asks.flatMap((ask) => [rule(ask), ask.key, String(ask.cost)])];
}
