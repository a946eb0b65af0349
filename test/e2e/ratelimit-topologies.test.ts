import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  RateLimitAlgorithm,
  RateLimitBasis,
  RateLimitCharge,
  RateLimitService,
} from "../../src/gen/holdfast/v1/rate_limit_pb.js";
import { startHoldfast } from "../support/holdfast-process.ts";
import { CallFailed, createRateLimitClient, limit, type RateLimitClient } from "../support/ratelimit-client.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { topologyCases } from "../support/topologies.ts";
import { until } from "../support/until.ts";

/*
 * Promises: the whole of RateLimitService answers alike, through real servers, in every topology and over every kind of Redis; of two
 * instances one sees what the other charged. Without a Redis that they share, each says that it counts its share.
 */

const { method } = RateLimitService;
const RULES = `
ratelimit:
  rules:
    fixed: { algorithm: fixed_window, limit: 5, period: 366d }
    sliding: { algorithm: sliding_window, limit: 5, period: 366d }
    bucket: { algorithm: token_bucket, limit: 10, period: 366d, burst: 5 }
    watched: { algorithm: fixed_window, limit: 1, period: 366d, shadow: true }
    jobs: { algorithm: concurrency, limit: 3 }
    open: { algorithm: fixed_window, limit: 1, period: 1h, fallback: open }
    closed: { algorithm: fixed_window, limit: 1, period: 1h, fallback: closed }
`;

describe.each(topologyCases)("rate limits: $name", ({ redis, name, instances, start }) => {
  const parts = new AsyncDisposableStack();
  let one: RateLimitClient;
  let other: RateLimitClient;
  const shares = name === "sql-only" ? 2 : 1;
  const basis = name === "sql-only" ? RateLimitBasis.LOCAL_SHARE : RateLimitBasis.SHARED;

  beforeAll(async () => {
    const directory = parts.adopt(scratchDirectory("rules"), (it) => it.remove());
    const file = join(directory.path, "holdfast.yaml");
    writeFileSync(file, RULES);
    const env = { ...(await start(parts)), HOLDFAST_CONFIG: file };
    const servers = [];
    for (let n = 0; n < instances; n++) servers.push(parts.use(await startHoldfast(env)));
    one = parts.use(createRateLimitClient(servers[0]?.grpcAddress ?? ""));
    // Without a Redis each counts by itself: what one charged is looked at there.
    other = redis ? parts.use(createRateLimitClient(servers.at(-1)?.grpcAddress ?? "")) : one;
    for (const client of [one, other]) {
      const settled = async () => {
        const { reply } = await client.check("fixed", "warm", { descriptors: [limit("fixed", "warm", 0)] });
        const [status] = reply.statuses;
        return status?.basis === basis && status.limit === BigInt(Math.floor(5 / shares));
      };
      await until(settled, { what: "the counters to be reached, and the others to be seen" });
    }
  });
  afterAll(() => parts.disposeAsync());

  it.each(["fixed", "sliding", "bucket"])("Check, Peek, Refund and Reset of a %s rule", async (rule) => {
    const most = Math.floor(5 / shares);
    const first = await one.check(rule, "k", { descriptors: [limit(rule, "k", most - 1)] });
    expect(first).toMatchObject({ degraded: shares > 1, servedBy: redis ? "redis" : "l1" });
    expect(first.reply).toMatchObject({ allowed: true, deniedBy: "", degraded: shares > 1 });
    expect(first.reply.statuses).toMatchObject([
      { rule, key: "k", allowed: true, limit: BigInt(most), remaining: 1n, overdrawn: 0n, basis },
    ]);
    const denied = (await other.check(rule, "k", { descriptors: [limit(rule, "k", 2)] })).reply;
    expect(denied).toMatchObject({ allowed: false, deniedBy: rule, retryAfter: { seconds: expect.any(BigInt) } });
    expect(denied.statuses[0]).toMatchObject({ allowed: false, remaining: 1n, retryAfter: denied.retryAfter });
    const { reply: peeked } = await other.call(method.peek, { descriptors: [limit(rule, "k"), limit(rule, "k", 6)] });
    expect(peeked).toMatchObject({ allowed: false, deniedBy: rule, statuses: [{ allowed: true }, { allowed: false }] });
    expect(peeked.retryAfter).toBeUndefined();
    const { reply: refund } = await other.call(method.refund, {
      descriptors: [limit(rule, "k", 1)],
      ...(first.reply.chargeTime !== undefined && { chargeTime: first.reply.chargeTime }),
    });
    expect(refund).toMatchObject({ refunded: [1n], statuses: [{ remaining: 2n }] });
    if (shares > 1) return;
    await other.call(method.reset, { descriptors: [limit(rule, "k")] });
    expect((await one.check(rule, "k")).reply.statuses[0]).toMatchObject({ remaining: 4n });
  });

  it("decides all descriptors as one", async () => {
    const full = { descriptors: [limit("fixed", "as-one", 5)], charge: RateLimitCharge.ALWAYS };
    await one.check("fixed", "as-one", full);
    const both = { descriptors: [limit("bucket", "as-one"), limit("fixed", "as-one")] };
    expect((await other.check("", "", both)).reply).toMatchObject({ allowed: false, deniedBy: "fixed" });
    const { reply } = await one.call(method.peek, { descriptors: [limit("bucket", "as-one")] });
    expect(reply.statuses[0]).toMatchObject({ remaining: BigInt(Math.floor(5 / shares)) });
  });

  it("charges past the limit when it is told to, and a shadow denies nothing", async () => {
    const always = { descriptors: [limit("fixed", "over", 9)], charge: RateLimitCharge.ALWAYS };
    const { reply } = await one.check("fixed", "over", always);
    const most = Math.floor(5 / shares);
    expect(reply).toMatchObject({ allowed: false, statuses: [{ remaining: 0n, overdrawn: BigInt(9 - most) }] });
    expect((await other.check("fixed", "over", { descriptors: [limit("fixed", "over", 0)] })).reply.allowed).toBe(
      false,
    );
    await one.check("watched", "s");
    const second = (await other.check("watched", "s")).reply;
    expect(second).toMatchObject({ allowed: true, deniedBy: "", statuses: [{ allowed: false, shadow: true }] });
    const shadow = (await other.check("fixed", "over", { descriptors: [limit("fixed", "over")], shadow: true })).reply;
    expect(shadow).toMatchObject({ allowed: true, statuses: [{ allowed: false, shadow: true }] });
  });

  it.skipIf(name === "sql-only")(
    "answers a retry as the first time, and refuses another request of that name",
    async () => {
      const named = { descriptors: [limit("fixed", "retry", 2)], requestId: "attempt-1" };
      const first = (await one.check("fixed", "retry", named)).reply;
      expect((await other.check("fixed", "retry", named)).reply).toEqual(first);
      const changed = other.check("fixed", "retry", { ...named, descriptors: [limit("fixed", "retry", 1)] });
      await expect(changed).rejects.toMatchObject({ code: "FAILED_PRECONDITION", reason: "REQUEST_ID_REUSED" });
      expect((await one.check("fixed", "retry")).reply.statuses[0]).toMatchObject({ remaining: 2n });
      const slots = { descriptors: [limit("jobs", "retry", 2)], requestId: "attempt-1" };
      const lease = (await one.call(method.acquireConcurrency, slots)).reply;
      expect((await other.call(method.acquireConcurrency, slots)).reply).toEqual(lease);
      const back = { descriptors: [limit("fixed", "retry", 1)], requestId: "attempt-1" };
      const refund = (await one.call(method.refund, back)).reply;
      expect((await other.call(method.refund, back)).reply).toEqual(refund);
    },
  );

  it("AcquireConcurrency takes slots, renews and denies, and ReturnConcurrency frees them", async () => {
    const most = Math.floor(3 / shares);
    const taken = (await one.call(method.acquireConcurrency, { descriptors: [limit("jobs", "a", most)] })).reply;
    expect(taken).toMatchObject({ allowed: true, statuses: [{ rule: "jobs", key: "a", remaining: 0n, basis }] });
    const full = (await other.call(method.acquireConcurrency, { descriptors: [limit("jobs", "a")] })).reply;
    expect(full).toMatchObject({ allowed: false, deniedBy: "jobs", statuses: [{ allowed: false }] });
    expect(full.retryAfter).toBeDefined();
    expect(full.lease).toBeUndefined();
    const leaseId = taken.lease?.id ?? "";
    const renewal = { leaseId, ttl: { seconds: 3_600n } };
    const renewed = (await other.call(method.acquireConcurrency, renewal)).reply;
    expect(renewed).toMatchObject({
      allowed: true,
      lease: { id: leaseId },
      statuses: [{ rule: "jobs", key: "a", allowed: true }],
    });
    expect(Number(renewed.lease?.expireTime?.seconds)).toBeGreaterThan(Number(taken.lease?.expireTime?.seconds));
    expect((await other.call(method.returnConcurrency, { leaseId })).reply.returned).toBe(true);
    expect((await one.call(method.returnConcurrency, { leaseId })).reply.returned).toBe(false);
    const over = (await one.call(method.acquireConcurrency, { leaseId })).reply;
    expect(over).toMatchObject({ allowed: false, statuses: [], deniedBy: "" });
    const { reply } = await other.call(method.peek, { descriptors: [limit("jobs", "a", most)] });
    expect(reply).toMatchObject({ allowed: true, statuses: [{ remaining: BigInt(most) }] });
    expect(reply.statuses[0]?.resetTime).toBeUndefined();
  });

  it("takes a rule from the request, and keeps its counters apart", async () => {
    const inline = {
      name: "fixed",
      algorithm: RateLimitAlgorithm.FIXED_WINDOW,
      limit: 2n,
      period: { seconds: 86_400n * 300n },
    };
    const descriptor = { rule: { case: "inlineRule", value: inline }, key: "inline" } as const;
    const { reply } = await one.call(method.check, { descriptors: [descriptor, limit("fixed", "inline")] });
    expect(reply.statuses.map(({ limit: most }) => most)).toEqual([BigInt(2 / shares), BigInt(Math.floor(5 / shares))]);
    expect(reply.statuses[0]).toMatchObject({ remaining: shares > 1 ? 0n : 1n });
  });

  it("lists its rules in pages", async () => {
    const { reply: first } = await other.call(method.listRules, { pageSize: 4 });
    const { reply: rest } = await other.call(method.listRules, { pageSize: 4, pageToken: first.nextPageToken });
    const names = [...first.rules, ...rest.rules].map((rule) => rule.name);
    expect(names).toEqual(["bucket", "closed", "fixed", "jobs", "open", "sliding", "watched"]);
    expect(rest.nextPageToken).toBe("");
    expect(first.loadTime).toBeDefined();
  });

  it.runIf(name === "sql-only")("always decides by the fallback, and resets nothing", async () => {
    expect((await one.check("open", "k")).reply.statuses).toMatchObject([{ basis: RateLimitBasis.FALLBACK_OPEN }]);
    const closed = (await one.check("closed", "k")).reply;
    expect(closed).toMatchObject({ allowed: false, deniedBy: "closed", statuses: [{ remaining: 0n }] });
    expect(closed.retryAfter).toBeUndefined();
    const reset = one.call(method.reset, { descriptors: [limit("fixed", "k")] });
    await expect(reset).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "REDIS_UNAVAILABLE" });
  });

  it("names every field that is wrong, and what a rule cannot do", async () => {
    const wrong = one.call(method.check, {
      namespace: "a b",
      descriptors: [
        { key: "" },
        limit("no good", "k", 1e12 + 1),
        { rule: { case: "inlineRule", value: {} }, key: "k" },
      ],
      requestId: "x".repeat(129),
    });
    const failed = await wrong.catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(CallFailed);
    expect((failed as CallFailed).fields.toSorted()).toEqual([
      "descriptors[0].key",
      "descriptors[0].rule",
      "descriptors[1].cost",
      "descriptors[1].rule_name",
      "descriptors[2].inline_rule.algorithm",
      "descriptors[2].inline_rule.limit",
      "descriptors[2].inline_rule.name",
      "namespace",
      "request_id",
    ]);
    const unknown = { code: "NOT_FOUND", reason: "RATE_LIMIT_RULE_UNKNOWN" };
    await expect(one.check("nobody", "k")).rejects.toMatchObject(unknown);
    const kind = { code: "FAILED_PRECONDITION", reason: "RATE_LIMIT_RULE_KIND" };
    await expect(one.check("jobs", "k")).rejects.toMatchObject(kind);
    await expect(one.call(method.acquireConcurrency, { descriptors: [limit("fixed", "k")] })).rejects.toMatchObject(
      kind,
    );
  });
});
