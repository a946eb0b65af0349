import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CacheOutcome, CacheService, SetOutcome } from "../../src/gen/holdfast/v1/cache_pb.js";
import { type CacheClient, createCacheClient, textOf } from "../support/cache-client.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { createLockClient, type LockClient, ms } from "../support/lock-client.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { startRedisSentinel } from "../support/redis-sentinel.ts";
import { until } from "../support/until.ts";

/* Promises: the whole cache API answers alike, through a real server, in every topology and over every kind of Redis. */

const { method } = CacheService;

type Start = (parts: AsyncDisposableStack) => Promise<Record<string, string>>;

const topologies: { name: string; layer: string; instances: number; start: Start }[] = [
  { name: "embedded", layer: "sqlite", instances: 1, start: async () => ({}) },
  { name: "single", layer: "redis", instances: 1, start: async () => ({ REDIS_URL: await freshRedis() }) },
  {
    name: "cluster",
    layer: "redis",
    instances: 2,
    start: async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() }),
  },
  { name: "sql-only", layer: "postgres", instances: 2, start: async () => ({ DATABASE_URL: await freshDatabase() }) },
  {
    name: "cluster, on a Redis Cluster of three masters",
    layer: "redis",
    instances: 2,
    start: async (parts) => {
      const { nodes } = parts.use(await startRedisCluster());
      const hosts = nodes.map(({ port }) => `127.0.0.1:${port}`).join(",");
      return { REDIS_URL: `redis-cluster://${hosts}`, DATABASE_URL: await freshDatabase() };
    },
  },
  {
    name: "cluster, on a Redis that Sentinels watch",
    layer: "redis",
    instances: 2,
    start: async (parts) => {
      const { sentinels, name } = parts.use(await startRedisSentinel());
      const hosts = sentinels.map(({ host, port }) => `${host}:${port}`).join(",");
      return { REDIS_URL: `redis-sentinel://${hosts}/${name}`, DATABASE_URL: await freshDatabase() };
    },
  },
];

const text = (value: string) => ({ kind: { case: "text", value } }) as const;
const bytes = (...value: number[]) => ({ kind: { case: "raw", value: Uint8Array.from(value) } }) as const;
const seconds = (count: number) => ({ kind: { case: "ttl", value: { seconds: BigInt(count) } } }) as const;

describe.each(topologies)("the cache API: $name", ({ name, layer, instances, start }) => {
  const parts = new AsyncDisposableStack();
  /** Calls go to one, and what they did is looked at through the other, where there are two. */
  let one: CacheClient;
  let other: CacheClient;
  let locks: LockClient;
  const namespace = "api";
  beforeAll(async () => {
    const env = await start(parts);
    const servers: HoldfastProcess[] = [];
    for (let n = 0; n < instances; n++) servers.push(parts.use(await startHoldfast(env)));
    one = parts.use(createCacheClient(servers[0]?.grpcAddress ?? ""));
    other = parts.use(createCacheClient(servers.at(-1)?.grpcAddress ?? ""));
    locks = parts.use(createLockClient(servers[0]?.grpcAddress ?? ""));
    for (const client of [one, other]) {
      const used = async () => (await client.put(namespace, "warm-up", "x")).servedBy === layer;
      await until(used, { what: `${layer} to be used` });
    }
    await one.call(method.delete, { namespace, key: "warm-up" });
  });
  afterAll(() => parts.disposeAsync());

  it("Set, Get, Exists, Touch and Delete", async () => {
    const set = await one.call(method.set, {
      namespace,
      key: "k/ü {1}",
      value: { ...bytes(0, 255, 10), contentType: "application/octet-stream" },
      expiry: seconds(100),
      tags: ["t"],
    });
    expect(set).toMatchObject({ servedBy: layer, degraded: false, reply: { outcome: SetOutcome.STORED } });
    const got = await other.call(method.get, { namespace, key: "k/ü {1}" });
    expect(got.reply.outcome).toBe(CacheOutcome.HIT);
    expect(got.reply.entry).toMatchObject({
      key: "k/ü {1}",
      version: set.reply.version,
      tags: ["t"],
      value: { contentType: "application/octet-stream" },
    });
    expect(Array.from(Buffer.from(got.reply.entry?.value?.kind.value ?? ""))).toEqual([0, 255, 10]);
    expect(got.reply.entry?.expireTime).toEqual(set.reply.expireTime);
    expect((await one.call(method.get, { namespace, key: "k/ü {1}" })).servedBy).toBe("l1");

    const touch = await other.call(method.touch, {
      namespace,
      key: "k/ü {1}",
      expiry: { kind: { case: "never", value: true } },
    });
    expect(touch.reply.found).toBe(true);
    expect(touch.reply.version > set.reply.version).toBe(true);
    const touched = async () => (await one.call(method.exists, { namespace, key: "k/ü {1}" })).reply;
    await until(async () => (await touched()).version === touch.reply.version, { what: "the touch to be seen" });
    expect((await touched()).expireTime).toBeUndefined();
    expect((await one.call(method.touch, { namespace, key: "absent" })).reply.found).toBe(false);

    expect((await one.call(method.delete, { namespace, key: "k/ü {1}" })).reply.existed).toBe(true);
    expect((await one.call(method.delete, { namespace, key: "k/ü {1}" })).reply.existed).toBe(false);
    expect(await other.text(namespace, "k/ü {1}", true)).toBeUndefined();
    expect((await one.call(method.exists, { namespace, key: "k/ü {1}" })).reply.exists).toBe(false);
    const again = await one.put(namespace, "k/ü {1}", "again");
    expect(again.reply.version > touch.reply.version).toBe(true);
  });

  it("expiry", async () => {
    const ttl = { kind: { case: "ttl", value: { nanos: 200_000_000 } } } as const;
    await one.call(method.set, { namespace, key: "short", value: text("v"), expiry: ttl });
    await until(async () => (await other.text(namespace, "short")) === undefined, { what: "the entry to expire" });
    expect(await one.text(namespace, "short")).toBeUndefined();
  });

  it("SetMany, GetMany and DeleteMany, with an error for each bad item", async () => {
    const keys = Array.from({ length: 300 }, (_, i) => `many-${i}`);
    const items = keys.map((key, i) => ({ key, value: text(`v${i}`) }));
    const { reply } = await one.call(method.setMany, { namespace, items: [...items, { key: "", value: text("x") }] });
    expect(reply.results.slice(0, -1).every(({ outcome }) => outcome === SetOutcome.STORED)).toBe(true);
    expect(reply.results.at(-1)?.error).toBeDefined();
    const got = await other.call(method.getMany, { namespace, keys: ["", ...keys, "absent"] });
    expect(got.reply.results.map(({ entry }) => entry?.value?.kind.value)).toEqual([
      undefined,
      ...keys.map((_, i) => `v${i}`),
      undefined,
    ]);
    expect(got.reply.results[0]?.error).toBeDefined();
    const gone = await one.call(method.deleteMany, { namespace, keys: [...keys.slice(0, 100), "absent"] });
    expect(gone.reply.results.map(({ existed }) => existed)).toEqual([...keys.slice(0, 100).map(() => true), false]);
    const left = await other.call(method.getMany, { namespace, keys, bypassL1: true });
    expect(left.reply.results.filter(({ outcome }) => outcome === CacheOutcome.HIT)).toHaveLength(200);
  });

  it("ListKeys lists each key that stays, over all pages", async () => {
    const listed = new Map<string, bigint>();
    let pageToken = "";
    let pages = 0;
    do {
      const { reply } = await other.call(method.listKeys, { namespace, prefix: "many-", pageSize: 37, pageToken });
      expect(reply.keys.length).toBeLessThanOrEqual(37);
      for (const { key, version } of reply.keys) listed.set(key, version);
      pageToken = reply.nextPageToken;
      pages++;
    } while (pageToken !== "" && pages < 1_000);
    expect([...listed.keys()].sort()).toEqual(Array.from({ length: 200 }, (_, i) => `many-${i + 100}`).sort());
    const { reply } = await one.call(method.get, { namespace, key: "many-150" });
    expect(listed.get("many-150")).toBe(reply.entry?.version);
  });

  it("Increment, and a retry of it", async () => {
    const increment = (client: CacheClient, requestId = "") =>
      client.call(method.increment, { namespace, key: "counter", delta: 5n, initial: 100n, requestId });
    expect((await increment(one)).reply.value).toBe(105n);
    const first = await increment(other, "r1");
    expect(first.reply.value).toBe(110n);
    expect((await increment(one, "r1")).reply).toEqual(first.reply);
    expect((await increment(one)).reply.value).toBe(115n);
    expect(await other.text(namespace, "counter", true)).toBe("115");
    await one.put(namespace, "word", "not a number");
    const refused = one.call(method.increment, { namespace, key: "word" });
    await expect(refused).rejects.toMatchObject({ code: "FAILED_PRECONDITION", reason: "VALUE_NOT_A_COUNTER" });
  });

  it("CompareAndSet, if_absent, and a retry", async () => {
    const swap = (client: CacheClient, expectedVersion: bigint, value: string, requestId = "") =>
      client.call(method.compareAndSet, { namespace, key: "cas", expectedVersion, value: text(value), requestId });
    const created = await swap(one, 0n, "a", "r1");
    expect(created.reply.swapped).toBe(true);
    expect((await swap(other, 0n, "a", "r1")).reply).toEqual(created.reply);
    const lost = await swap(other, 0n, "b");
    expect(lost.reply.swapped).toBe(false);
    expect(lost.reply.current?.version).toBe(created.reply.version);
    expect(lost.reply.current?.value?.kind.value).toBe("a");
    expect((await swap(other, created.reply.version, "c")).reply.swapped).toBe(true);
    expect((await one.put(namespace, "cas", "d", { ifAbsent: true })).reply.outcome).toBe(SetOutcome.EXISTS);
    expect((await one.put(namespace, "fresh", "d", { ifAbsent: true })).reply.outcome).toBe(SetOutcome.STORED);
    expect(await one.text(namespace, "cas", true)).toBe("c");
  });

  it("InvalidateTags and InvalidateNamespace", async () => {
    const own = "api-tags";
    await one.put(own, "both", "v", { tags: ["x", "y"] });
    await one.put(own, "x-only", "v", { tags: ["x"] });
    await one.put(own, "none", "v");
    await other.call(method.invalidateTags, { namespace: own, tags: ["y", "never-used"] });
    const seen = async (client: CacheClient) => {
      const { reply } = await client.call(method.getMany, {
        namespace: own,
        keys: ["both", "x-only", "none"],
        bypassL1: true,
      });
      return reply.results.map(({ outcome }) => outcome === CacheOutcome.HIT);
    };
    expect(await seen(one)).toEqual([false, true, true]);
    expect(await seen(other)).toEqual([false, true, true]);
    await one.put(own, "both", "new", { tags: ["x", "y"] });
    expect(await seen(other)).toEqual([true, true, true]);
    await other.call(method.invalidateNamespace, { namespace: own });
    expect(await seen(one)).toEqual([false, false, false]);
    expect((await one.call(method.listKeys, { namespace: own })).reply.keys).toEqual([]);
    await one.put(own, "none", "new");
    expect(await seen(other)).toEqual([false, false, true]);
  });

  it("leases across instances", async () => {
    const ask = (client: CacheClient, waitTimeout = {}) =>
      client.call(method.get, { namespace, key: "leased", leaseTtl: { seconds: 30n }, waitTimeout });
    const holder = await ask(one);
    expect(holder.reply.lease?.token).toMatch(/./);
    const second = await ask(other);
    expect(second.reply.outcome).toBe(CacheOutcome.MISS);
    expect(second.reply.lease).toBeUndefined();
    const waiting = ask(other, { seconds: 20n });
    const leaseToken = holder.reply.lease?.token ?? "";
    expect((await one.put(namespace, "leased", "filled", { leaseToken })).reply.outcome).toBe(SetOutcome.STORED);
    expect(textOf((await waiting).reply)).toBe("filled");
    expect((await one.put(namespace, "leased", "late", { leaseToken })).reply.outcome).toBe(SetOutcome.LEASE_LOST);
  });

  it("writes under a lock, until another holder has written", async () => {
    const lock = "api/fenced";
    const first = await locks.take(lock, { ttl: ms(100) });
    const key = "fenced";
    const write = (client: CacheClient, by: string, token: bigint) =>
      client.call(method.set, { namespace, key, value: text(by), fencing: { lock, token } });
    expect((await write(one, "the first", first)).reply.outcome).toBe(SetOutcome.STORED);
    const next = (await locks.acquire(lock, { ttl: ms(60_000) })).lock?.fencingToken ?? 0n;
    expect((await write(other, "the second", next)).reply.outcome).toBe(SetOutcome.STORED);
    const stale = { code: "FAILED_PRECONDITION", reason: "FENCING_TOKEN_STALE" };
    const items = [
      { key, value: text("late") },
      { key: "fenced too", value: text("late") },
    ];
    for (const client of [one, other]) {
      const fencing = { lock, token: first };
      await expect(write(client, "late", first)).rejects.toMatchObject(stale);
      await expect(client.call(method.setMany, { namespace, items, fencing })).rejects.toMatchObject(stale);
      await expect(client.call(method.delete, { namespace, key, fencing })).rejects.toMatchObject(stale);
      await expect(client.call(method.deleteMany, { namespace, keys: [key], fencing })).rejects.toMatchObject(stale);
      const swap = { namespace, key, value: text("late"), expectedVersion: 1n, fencing };
      await expect(client.call(method.compareAndSet, swap)).rejects.toMatchObject(stale);
      expect(await client.text(namespace, key, true)).toBe("the second");
      const unknown = write(client, "of nobody", next + 1n);
      await expect(unknown).rejects.toMatchObject({ ...stale, reason: "FENCING_TOKEN_UNKNOWN" });
    }
    const fencing = { lock, token: next };
    const many = await one.call(method.setMany, { namespace, items: [...items, { key: "" }], fencing });
    expect(many.reply.results.map(({ outcome }) => outcome)).toEqual([SetOutcome.STORED, SetOutcome.STORED, 0]);
    const swapped = await other.call(method.compareAndSet, { namespace, key: "fenced cas", value: text("v"), fencing });
    expect(swapped.reply.swapped).toBe(true);
    const gone = await other.call(method.deleteMany, { namespace, keys: [key, "fenced cas"], fencing });
    expect(gone.reply.results.map(({ existed }) => existed)).toEqual([true, true]);
    expect((await one.call(method.delete, { namespace, key: "fenced too", fencing })).reply.existed).toBe(true);
  });

  it("Warm, GetStats and Watch", async () => {
    await using watching = await other.watch({ namespace: "api-warm", prefix: "w" });
    await one.call(method.setMany, {
      namespace: "api-warm",
      items: Array.from({ length: 20 }, (_, i) => ({ key: `w${i}`, value: text(`v${i}`) })),
    });
    await one.put("api-warm", "unwatched", "v");
    await one.call(method.delete, { namespace: "api-warm", key: "w19" });
    const told = () => watching.events.flatMap(({ event }) => (event.case === "change" ? [event.value.key] : []));
    await until(() => told().length === 21, { what: "21 changes" });
    expect(new Set(told())).toEqual(new Set(Array.from({ length: 20 }, (_, i) => `w${i}`)));
    const warmed = await other.call(method.warm, { namespace: "api-warm", patterns: ["w1*", "w2"], wait: true });
    expect(warmed.reply).toMatchObject({ l1Full: false });
    expect((await other.call(method.get, { namespace: "api-warm", key: "w18" })).servedBy).toBe("l1");
    const stats = await other.call(method.getStats, { namespace: "api-warm" });
    expect(stats.reply.namespaces).toHaveLength(1);
    expect(stats.reply.namespaces[0]).toMatchObject({ namespace: "api-warm" });
    expect(Number(stats.reply.namespaces[0]?.l1Hits)).toBeGreaterThan(0);
    const all = await other.call(method.getStats, {});
    expect(all.reply.namespaces.map((it) => it.namespace)).toContain("api-tags");
  });

  it(`answers nothing degraded by the end (${name})`, async () => {
    const { servedBy, degraded } = await other.call(method.get, { namespace, key: "cas", bypassL1: true });
    expect({ servedBy, degraded }).toEqual({ servedBy: layer, degraded: false });
  });
});
