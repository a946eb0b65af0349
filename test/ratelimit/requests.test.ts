import { create, type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { RateLimitService } from "../../src/gen/holdfast/v1/rate_limit_pb.js";
import type { CallContext } from "../../src/infra/call.ts";
import { Failure } from "../../src/infra/failure.ts";
import { createMetrics } from "../../src/infra/metrics.ts";
import { UnknownRuleError } from "../../src/ratelimit/failures.ts";
import { createMemoryCounters } from "../../src/ratelimit/memory.ts";
import { createLimitMetrics } from "../../src/ratelimit/metrics.ts";
import { createRuleBook } from "../../src/ratelimit/rule-book.ts";
import { createRateLimitService } from "../../src/ratelimit/service.ts";
import { createSharedLimiter } from "../../src/ratelimit/shared-limiter.ts";
import { movedClock } from "../support/moved-clock.ts";
import { ruleOf } from "./rules.ts";

/* Promises: every RPC names each field that is wrong. */

const rules = createRuleBook([ruleOf("fixed_window", 5), ruleOf("concurrency", 5, { name: "jobs" })], 0);
const shared = createMemoryCounters({ clock: movedClock() });
const { rpcs } = createRateLimitService({
  limiter: createSharedLimiter({ shared, fallback: undefined, leftAlone: () => undefined, rules }),
  rules,
  metrics: createLimitMetrics(createMetrics({ defaults: false }), () => 0),
  layer: undefined,
});
const { method } = RateLimitService;

const call: CallContext = {
  method: "test",
  caller: { name: "me", hasScope: (scope) => scope !== "ratelimit:inline", mayUse: () => true },
  deadline: undefined,
  signal: new AbortController().signal,
  interruption: undefined,
  servedBy() {},
  degraded() {},
};

async function failureOf<Desc extends DescMessage>(
  desc: { readonly localName: string; readonly input: Desc },
  request: MessageInitShape<Desc>,
): Promise<Failure> {
  const rpc = rpcs[desc.localName];
  if (typeof rpc !== "function") throw new Error(`there is no ${desc.localName}`);
  try {
    await rpc(create(desc.input, request), call);
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error("it was taken");
}

const fieldsOf = ({ violations }: Failure) => violations.map(({ field }) => field);
const named = (value: string, more: object = {}) => ({ rule: { case: "ruleName" as const, value }, key: "k", ...more });
const inline = (value: object, key = "k") => ({ rule: { case: "inlineRule" as const, value }, key });
const good = { name: "mine", algorithm: 1, limit: 5n, period: { seconds: 60n } };

describe("a request about limits", () => {
  it.each<[string, object, string[]]>([
    ["no name", { ...good, name: "" }, ["name"]],
    ["a name that is none", { ...good, name: "a b" }, ["name"]],
    ["no algorithm", { ...good, algorithm: 0 }, ["algorithm"]],
    ["an algorithm nobody knows", { ...good, algorithm: 99 }, ["algorithm"]],
    ["a limit of 0", { ...good, limit: 0n }, ["limit"]],
    ["a limit that is too large", { ...good, limit: 1_000_000_000_001n }, ["limit"]],
    ["no period", { ...good, period: undefined }, ["period"]],
    ["a period of nothing", { ...good, period: {} }, ["period"]],
    ["a period that is too short", { ...good, period: { nanos: 999_999 } }, ["period"]],
    ["a period that is too long", { ...good, period: { seconds: 366n * 86_400n + 1n } }, ["period"]],
    ["a negative period", { ...good, period: { seconds: -1n } }, ["period"]],
    ["a period for concurrency", { ...good, algorithm: 4 }, ["period"]],
    ["a burst that is too large", { ...good, algorithm: 3, burst: 1_000_000_000_001n }, ["burst"]],
    ["a burst without a bucket", { ...good, burst: 1n }, ["burst"]],
    ["a fallback nobody knows", { ...good, fallback: 9 }, ["fallback"]],
    ["nothing at all", {}, ["name", "algorithm", "limit"]],
  ])("names what is wrong with a rule in it: %s", async (_, rule, fields) => {
    const failure = await failureOf(method.check, { descriptors: [named("rule"), inline(rule)] });
    expect(fieldsOf(failure).toSorted()).toEqual(
      fields.map((field) => `descriptors[1].inline_rule.${field}`).toSorted(),
    );
  });

  it("may not count one limit in two ways", async () => {
    const other = { ...good, limit: 6n };
    const descriptors = [inline(good), inline(other, "another"), inline(good), inline(other)];
    expect(fieldsOf(await failureOf(method.check, { descriptors }))).toEqual(["descriptors[3].inline_rule"]);
  });

  it("has 1 to 16 descriptors, each with a rule, a key and a cost that may be", async () => {
    const fields = async (descriptors: object[]) => fieldsOf(await failureOf(method.peek, { descriptors }));
    expect(await fields([])).toEqual(["descriptors"]);
    expect(await fields(Array.from({ length: 17 }, () => named("rule")))).toEqual(["descriptors"]);
    expect(await fields([named("rule", { key: "x".repeat(1_025) }), { key: "a\0b" }])).toEqual([
      "descriptors[0].key",
      "descriptors[1].key",
      "descriptors[1].rule",
    ]);
    expect(await fields([named("rule", { cost: 1_000_000_000_001n })])).toEqual(["descriptors[0].cost"]);
  });

  it("says what else is wrong with it, RPC by RPC", async () => {
    const unknown: number = 7;
    const charged = { descriptors: [named("rule")], charge: unknown };
    expect(fieldsOf(await failureOf(method.check, charged))).toEqual(["charge"]);
    const refund = {
      descriptors: [named("rule", { cost: 0n })],
      chargeTime: { nanos: -1 },
      requestId: "x".repeat(129),
    };
    expect(fieldsOf(await failureOf(method.refund, refund)).toSorted()).toEqual([
      "charge_time",
      "descriptors[0].cost",
      "request_id",
    ]);
    const ttl = async (seconds: bigint) =>
      fieldsOf(await failureOf(method.acquireConcurrency, { descriptors: [named("jobs")], ttl: { seconds } }));
    expect([await ttl(0n), await ttl(86_401n), await ttl(-1n)]).toEqual([["ttl"], ["ttl"], ["ttl"]]);
    const short = { descriptors: [named("jobs")], ttl: { nanos: 999_000_000 } };
    expect(fieldsOf(await failureOf(method.acquireConcurrency, short))).toEqual(["ttl"]);
    const both = { descriptors: [named("jobs")], leaseId: "x" };
    expect(fieldsOf(await failureOf(method.acquireConcurrency, both))).toEqual(["descriptors"]);
    expect(fieldsOf(await failureOf(method.returnConcurrency, {}))).toEqual(["lease_id"]);
    const list = { pageSize: -1, pageToken: "nonsense", prefix: "x".repeat(129) };
    expect(fieldsOf(await failureOf(method.listRules, list)).toSorted()).toEqual(["page_size", "page_token", "prefix"]);
  });

  it("is told of its scope, then of a rule that is not there, then of one of the wrong kind", async () => {
    const reason = async (...descriptors: object[]) => (await failureOf(method.check, { descriptors })).reason;
    expect(await reason(named("jobs"), named("nobody"), inline(good))).toBe("SCOPE_MISSING");
    expect(await reason(named("nobody"), named("jobs"))).toBe("RATE_LIMIT_RULE_UNKNOWN");
    expect(await reason(named("jobs"))).toBe("RATE_LIMIT_RULE_KIND");
    const { metadata } = await failureOf(method.check, { descriptors: [named("rule"), named("nobody")] });
    expect(metadata).toEqual({ field: "descriptors[1].rule_name", rule: "nobody" });
  });

  it("is told which rule was meant, or where rules come from when there are none", async () => {
    const { message } = await failureOf(method.check, { descriptors: [named("job")] });
    expect(message).toContain('no rule is called "job"; did you mean jobs?');
    const failure = new UnknownRuleError("job", "rule_name", []);
    expect(failure.message).toContain("there are none, they come from ratelimit.rules in holdfast.yaml");
  });
});
