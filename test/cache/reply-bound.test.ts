import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { LIMITS } from "../../src/cache/fields.ts";
import { keysAtOnce } from "../../src/cache/portions.ts";
import { getManyReply, replyRoom } from "../../src/cache/replies.ts";
import type { CacheStore } from "../../src/cache/store.ts";
import {
  CacheOutcome,
  CacheService,
  CacheServiceGetManyRequestSchema,
  CacheServiceGetManyResponseSchema,
  CacheServiceGetRequestSchema,
} from "../../src/gen/holdfast/v1/cache_pb.js";
import { createBadCaller } from "../support/bad-caller.ts";
import { createCacheClient } from "../support/cache-client.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startEmbedded } from "./embedded.ts";

const MIB = 1024 * 1024;

/** Notes the most keys that were read in one go, and all that were. */
function counting() {
  const seen = { most: 0, all: 0 };
  const between = (store: CacheStore): CacheStore => ({
    ...store,
    read(namespace, keys) {
      seen.most = Math.max(seen.most, keys.length);
      seen.all += keys.length;
      return store.read(namespace, keys);
    },
  });
  return { seen, between };
}

describe("a batch of large values", () => {
  it("is read a few at a time, and not beyond what the reply has room for", async () => {
    const { seen, between } = counting();
    const { cache, namespace, put } = await startEmbedded({ between });
    const keys = Array.from({ length: 300 }, (_, i) => `k${i}`);
    const value = new Uint8Array(MIB);
    for (const key of keys.slice(0, 100)) await put(key, value);
    const found = await cache.reads.getMany(namespace, keys, true, replyRoom(keys.length));
    expect(found.map((one) => one?.outcome)).toEqual([...Array(3).fill("hit"), ...Array(297).fill(undefined)]);
    expect(seen.most).toBe(keysAtOnce(namespace.policy));
    expect(seen.all).toBe(keysAtOnce(namespace.policy));
  });

  it("is not all read at once to be deleted, or stored if absent", async () => {
    const { seen, between } = counting();
    const { cache, namespace } = await startEmbedded({ between });
    const keys = Array.from({ length: 300 }, (_, i) => `k${i}`);
    await cache.remove(namespace, keys);
    expect(seen.most).toBe(keysAtOnce(namespace.policy));
    const value = { data: "", contentType: "" };
    await cache.set(
      namespace,
      keys.map((key) => ({ key, value, expiry: "never", tags: [], ifAbsent: true, leaseToken: "" })),
    );
    expect(seen.all).toBe(600);
  });

  it("of small ones is read whole where the policy lets none be large", async () => {
    const { seen, between } = counting();
    const { cache, namespace } = await startEmbedded({ between, policy: { maxBytes: 10_000 } });
    const keys = Array.from({ length: 1_000 }, (_, i) => `k${i}`);
    await cache.reads.getMany(namespace, keys, true, () => true);
    expect(seen).toEqual({ most: 1_000, all: 1_000 });
  });
});

it("a reply has room for an error in the place of every key, however full it is", () => {
  const value = { data: new Uint8Array(100_000), contentType: "" };
  const record = { version: 2 ** 52, deleted: false, value, createdAt: 0, expiresAt: 1, staleUntil: 1 };
  const found = {
    outcome: "hit",
    record: { ...record, tags: ["t"], stamps: [] },
    held: undefined,
    seen: 0,
    layer: "l1",
    degraded: false,
  } as const;
  const fits = replyRoom(1_000);
  const results = Array.from({ length: 1_000 }, (_, i) => {
    if (i >= 950) return { field: "key", description: `is ${2 ** 50} bytes long; the limit is 1024` };
    return fits("k", found) ? { key: "k", found } : "no room";
  });
  const { bytes } = getManyReply(results);
  expect(bytes.length).toBeLessThanOrEqual(LIMITS.replyBytes);
  expect(bytes.length).toBeGreaterThan(LIMITS.replyBytes - 250_000);
});

it("a GetMany answers what a client takes by default, and names the keys it had no room for, on both planes", async () => {
  await using server = await startHoldfast();
  using client = createCacheClient(server.grpcAddress);
  await client.put("", "large", "x".repeat(1.5 * MIB));
  await client.put("", "larger", "ж".repeat(1.5 * MIB));
  await client.put("", "small", "s");
  for (const bypassL1 of [false, true]) {
    const request = { keys: ["large", "small", "larger", "large", "large", "small", "none"], bypassL1 };
    const { reply } = await client.call(CacheService.method.getMany, request);
    const answers = reply.results.map(({ outcome, error }) => (error ? error.reason : CacheOutcome[outcome]));
    expect(answers).toEqual(["HIT", "HIT", "REPLY_TOO_LARGE", "HIT", "REPLY_TOO_LARGE", "HIT", "MISS"]);
    expect(reply.results[2]?.error).toMatchObject({ code: "RESOURCE_EXHAUSTED", field: "" });

    const answer = await fetch(`${server.httpUrl}/${CacheService.typeName}/GetMany`, {
      method: "POST",
      headers: { "content-type": "application/proto" },
      body: Buffer.from(toBinary(CacheServiceGetManyRequestSchema, create(CacheServiceGetManyRequestSchema, request))),
    });
    const decoded = fromBinary(CacheServiceGetManyResponseSchema, new Uint8Array(await answer.arrayBuffer()));
    expect(decoded).toEqual(reply);
  }
  const repeated = await client.call(CacheService.method.getMany, { keys: Array(1_000).fill("large") });
  expect(repeated.reply.results.filter(({ entry }) => entry !== undefined)).toHaveLength(2);
});

it("the largest value is read with a limit of 5 MiB on what a client receives, and alone", async () => {
  await using server = await startHoldfast();
  using client = createCacheClient(server.grpcAddress);
  using unlimited = createBadCaller(server.grpcAddress);
  const key = "k".repeat(1_024);
  const tags = Array.from({ length: 64 }, (_, i) => `${i}`.padEnd(256, "t"));
  await client.put("", key, "x".repeat(4 * MIB), { tags });
  const { reply } = await client.call(CacheService.method.getMany, { keys: [key] });
  expect(reply.results.map(({ error }) => error?.reason)).toEqual(["REPLY_TOO_LARGE"]);
  const request = toBinary(CacheServiceGetRequestSchema, create(CacheServiceGetRequestSchema, { key }));
  const ending = await unlimited.send(`/${CacheService.typeName}/Get`, request);
  expect(ending.code).toBe("OK");
  expect(ending.reply?.length).toBeGreaterThan(4 * MIB);
  expect(ending.reply?.length).toBeLessThan(5 * MIB);
});
