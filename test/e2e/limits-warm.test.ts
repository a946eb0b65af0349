import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { globMatcher } from "../../src/cache/warm.ts";
import {
  CacheService,
  CacheServiceWarmRequestSchema,
  CacheServiceWarmResponseSchema,
} from "../../src/gen/holdfast/v1/cache_pb.js";
import { type BadCaller, complaints, createBadCaller } from "../support/bad-caller.ts";
import { createCacheClient } from "../support/cache-client.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

type WarmRequest = MessageInitShape<typeof CacheServiceWarmRequestSchema>;

function warm(caller: BadCaller, request: WarmRequest) {
  const bytes = toBinary(CacheServiceWarmRequestSchema, create(CacheServiceWarmRequestSchema, request));
  return caller.send(`/${CacheService.typeName}/Warm`, bytes);
}

describe("a pattern", () => {
  it.each([
    ["user-*", ["user-1", "user-"], ["user", "xuser-1"]],
    ["a?c", ["abc", "a\u{1f600}c"], ["ac", "abbc"]],
    ["*", ["", "anything"], []],
    ["*b*", ["b", "abc"], ["", "ac"]],
    ["aa*aa", ["aaaa", "aaxaa"], ["aaa"]],
    ["(a+)+$.[b]\\d", ["(a+)+$.[b]\\d"], ["aaaa"]],
  ])("%j matches %j and not %j", (pattern, matching, others) => {
    const matches = globMatcher(pattern);
    expect(matching.filter(matches)).toEqual(matching);
    expect(others.filter(matches)).toEqual([]);
  });

  it("means what it would as a regular expression", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b", "\u{1f600}"), maxLength: 8 });
    const pattern = fc.string({ unit: fc.constantFrom("a", "b", "*", "?"), maxLength: 6 });
    const property = fc.property(pattern, letters, (glob, text) => {
      const expression = new RegExp(`^${glob.replaceAll("?", "[^]").replaceAll("*", "[^]*")}$`, "u");
      expect(globMatcher(glob)(text)).toBe(expression.test(text));
    });
    fc.assert(property, { numRuns: 2_000, seed: 7420 });
  });
});

it("a pattern of 500 stars does not keep the server from its other callers", async () => {
  await using server = await startHoldfast();
  using caller = createBadCaller(server.grpcAddress);
  using client = createCacheClient(server.grpcAddress);
  await client.put("", "a".repeat(1_024), "x");
  expect(
    await warm(caller, { patterns: [`a${"*a".repeat(500)}b`, "a*a*a*a*a*a*a*a*a*a*b"], wait: true }),
  ).toMatchObject({
    code: "OK",
  });
  expect(await client.text("", "a".repeat(1_024))).toBe("x");
});

it("a queue of a hundred warmings takes no more, until they are done", async () => {
  const redis = await startRedis();
  await using server = await startHoldfast({ REDIS_URL: redis.url, REDIS_COMMAND_TIMEOUT: "20s" });
  using caller = createBadCaller(server.grpcAddress);
  using client = createCacheClient(server.grpcAddress);
  await client.put("", "k-1", "x");
  redis.pause();
  for (let i = 0; i < 100; i++) expect(await warm(caller, { patterns: ["k-*"] })).toMatchObject({ code: "OK" });
  expect(await warm(caller, { patterns: ["k-*"] })).toMatchObject({
    code: "RESOURCE_EXHAUSTED",
    domain: "holdfast",
    reason: "WARM_QUEUE_FULL",
    retryable: true,
  });
  redis.resume();
  const warmed = await until(
    async () => {
      const ending = await warm(caller, { patterns: ["k-*"], wait: true });
      return ending.code === "OK" ? ending : undefined;
    },
    { what: "room in the queue" },
  );
  expect(fromBinary(CacheServiceWarmResponseSchema, warmed?.reply ?? Buffer.alloc(0)).l1Full).toBe(false);
  expect(complaints(server.output())).toEqual([]);
  await redis.stop();
});
