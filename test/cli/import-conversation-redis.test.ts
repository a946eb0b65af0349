import { Redis } from "ioredis";
import { afterEach, describe, expect, it } from "vitest";
import { openConversationRedis } from "../../src/cli/import/conversation-redis.ts";
import { prefixesOf } from "../../src/cli/import/conversation-source.ts";
import { freshRedis } from "../support/fresh.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { startRedisSentinel } from "../support/redis-sentinel.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { contents, namesIn, outcomeOf } from "./conversation-contents.ts";

describe("the keys of a Redis", () => {
  const clients: Redis[] = [];
  afterEach(() => {
    for (const client of clients.splice(0)) client.disconnect();
  });

  function clientOf(url: string): Redis {
    const client = new Redis(url);
    clients.push(client);
    return client;
  }

  const open = (redisUrl: string, ...collections: string[]) =>
    openConversationRedis({ redisUrl, environment: {}, prefixes: prefixesOf(collections) });

  it("are those of both collections, each once, with the time that is left", async () => {
    const url = await freshRedis();
    const redis = clientOf(url);
    await redis.set("conversation:a:b", '{"status": "x"}', "EX", 1000);
    await redis.set("orchestration:o", '{"status": "y"}');
    await redis.set("conversation:", '{"status": "no id"}');
    await redis.set("conversations:x", '{"status": "another"}');
    await redis.set("{conversation:a:b}:holdfast", "hfc1");
    for (let n = 0; n < 1500; n++) await redis.set(`conversation:many-${n}`, "{}");
    const found = await contents(await open(url));
    expect(found.size).toBe(1503);
    expect(found.get("conversation:")).toMatch(/^NO_ID: its key is the prefix "conversation:" alone/);
    expect(found.get("orchestration:o")).toEqual({
      ...{ collection: "orchestration", id: "o", document: { status: "y" }, lifetime: "never" },
    });
    const first = found.get("conversation:a:b");
    if (typeof first !== "object" || typeof first.lifetime !== "object") throw new Error("it has no lifetime");
    expect(first).toMatchObject({ collection: "conversation", id: "a:b", document: { status: "x" } });
    const leftMs = first.lifetime.endsAtMs - performance.now();
    expect(leftMs).toBeGreaterThan(900_000);
    expect(leftMs).toBeLessThanOrEqual(1_000_000);
  });

  it("may have any prefix, whatever it means in a pattern", async () => {
    const url = await freshRedis();
    const redis = clientOf(url);
    await redis.mset(
      "app[1]*:x",
      '{"n": 1}',
      "app1:x",
      '{"n": 2}',
      "app[1]*:deep:y",
      '{"n": 3}',
      "conversation:z",
      "{}",
    );
    const found = await contents(await open(url, "chat=app[1]*:", "deep=app[1]*:deep:"));
    expect([...found.values()]).toHaveLength(2);
    expect(found.get("app[1]*:x")).toMatchObject({ collection: "chat", id: "x" });
    expect(found.get("app[1]*:deep:y")).toMatchObject({ collection: "deep", id: "y" });
  });

  it("that hold something else are refused by name, and the others go on", async () => {
    const url = await freshRedis();
    const redis = clientOf(url);
    await redis.set("conversation:good", '{"status": "x"}');
    await redis.set("conversation:broken", '{"status": ');
    await redis.set("conversation:nan", '{"score": NaN}');
    await redis.rpush("conversation:list", "a");
    await redis.hset("conversation:hash", "a", "b");
    await redis.set("conversation:bytes", Buffer.from([0x80, 4, 0x95]));
    await redis.set("conversation:latin", Buffer.from('{"status": "caf\u00e9"}', "latin1"));
    await redis.set("conversation:marked", '\ufeff{"status": "x"}');
    await redis.set(Buffer.from([...Buffer.from("conversation:"), 0xff]), "{}");
    const found = await contents(await open(url));
    expect(found.size).toBe(9);
    expect(found.get("conversation:latin")).toMatch(/^NOT_JSON: .*not even UTF-8/);
    expect(found.get("conversation:marked")).toMatchObject({ id: "marked", document: { status: "x" } });
    expect(found.get("conversation:good")).toMatchObject({ id: "good" });
    expect(found.get("conversation:broken")).toMatch(/^NOT_JSON: is not JSON, or is torn off/);
    expect(found.get("conversation:nan")).toMatch(/^NOT_A_NUMBER: holds NaN/);
    expect(found.get("conversation:list")).toMatch(/^NOT_A_STRING: holds a list/);
    expect(found.get("conversation:hash")).toMatch(/^NOT_A_STRING: holds a hash/);
    expect(found.get("conversation:bytes")).toMatch(/^NOT_JSON: .*not even UTF-8.*800495/);
    expect(found.get("conversation:\ufffd")).toMatch(/^KEY_NOT_TEXT/);
  });

  it("that are gone before they are read are nothing", async () => {
    const url = await freshRedis();
    const redis = clientOf(url);
    await redis.set("conversation:a", "{}");
    const source = await open(url);
    for await (const place of source.places()) {
      await redis.del("conversation:a");
      expect(await place.load()).toBeUndefined();
    }
    await source.close();
  });

  it("that expire between the scan and the reading are nothing", async () => {
    const url = await freshRedis();
    const redis = clientOf(url);
    await redis.set("conversation:a", "{}", "PX", 300);
    const source = await open(url);
    for await (const place of source.places()) {
      await until(async () => (await redis.exists("conversation:a")) === 0, { what: "the end of the key" });
      expect(await place.bytes()).toBe(0);
      expect(await place.load()).toBeUndefined();
    }
    await source.close();
  });

  it("can be mended in the file of what was refused: it has the key, the value and the time that is left", async () => {
    const url = await freshRedis();
    await clientOf(url).set("conversation:a", '{"score": NaN}', "EX", 100);
    const source = await open(url);
    for await (const place of source.places()) {
      await outcomeOf(place);
      expect(place.raw()).toMatchObject({ key: "conversation:a", value: '{"score": NaN}', ttl: expect.any(Number) });
    }
    await source.close();
  });

  it("that are no text stand there as they were, byte by byte", async () => {
    const url = await freshRedis();
    const bytes = Buffer.from([0x7b, 0xff, 0x7d]);
    await clientOf(url).set("conversation:a", bytes);
    const source = await open(url);
    for await (const place of source.places()) {
      await outcomeOf(place);
      expect(place.raw()).toEqual({ key: "conversation:a", base64: bytes.toString("base64"), ttl: -1 });
    }
    await source.close();
  });

  it("of two prefixes may be of one collection, which is known then", async () => {
    const url = await freshRedis();
    await clientOf(url).mset("a:1", "{}", "b:1", "{}");
    const source = await open(url, "chat=a:", "chat=b:");
    expect(source.mayRepeat).toBe(true);
    expect(namesIn(await contents(source))).toEqual(["chat/1", "chat/1"]);
  });

  it("are missed where there are none, and what there is is shown", async () => {
    const url = await freshRedis();
    expect((await open(url)).remarks.join()).toMatch(/no key conversation:\* and orchestration:\*.*no keys at all/);
    await clientOf(url).set("chat:1", "{}");
    expect((await open(url)).remarks.join()).toMatch(/keys such as chat:1/);
    expect((await open(url, "chat")).remarks).toEqual([]);
  });

  it("are all read though Redis goes away in the middle", async () => {
    await using redis: RedisServer = await startRedis({ args: ["--appendonly", "yes"] });
    const client = clientOf(redis.url);
    const pipeline = client.pipeline();
    for (let n = 0; n < 3000; n++) pipeline.set(`conversation:${n}`, `{"n": ${n}}`);
    await pipeline.exec();
    const source = await open(redis.url);
    const ids = new Set<string>();
    let count = 0;
    for await (const place of source.places()) {
      if (count++ === 700) {
        await redis.kill();
        await redis.restart();
      }
      const loaded = await place.load();
      if (loaded !== undefined) ids.add(loaded.id);
    }
    await source.close();
    expect(ids.size).toBe(3000);
  });

  it("are read from all nodes of a Redis Cluster", async () => {
    await using cluster = await startRedisCluster();
    const nodes = cluster.nodes.map(({ port }) => `127.0.0.1:${port}`).join(",");
    const client = new Redis.Cluster(cluster.nodes.map(({ port }) => ({ host: "127.0.0.1", port })));
    for (let n = 0; n < 300; n++) await client.set(`conversation:${n}`, `{"n": ${n}}`, "EX", 500);
    client.disconnect();
    const found = await contents(await open(`redis-cluster://${nodes}`));
    expect(new Set([...found.values()].map((one) => typeof one === "object" && one.id)).size).toBe(300);
  });

  it("are read from the primary that Sentinels name, also after a failover in the middle", async () => {
    await using sentinel = await startRedisSentinel();
    const client = clientOf(sentinel.primary.url);
    const pipeline = client.pipeline();
    for (let n = 0; n < 1500; n++) pipeline.set(`conversation:${n}`, `{"n": ${n}}`);
    await pipeline.exec();
    expect(await client.wait(1, 10_000)).toBe(1);
    client.disconnect();
    const nodes = sentinel.sentinels.map(({ host, port }) => `${host}:${port}`).join(",");
    const source = await open(`redis-sentinel://${nodes}/${sentinel.name}`);
    const ids = new Set<string>();
    let count = 0;
    for await (const place of source.places()) {
      if (count++ === 200) await sentinel.primary.kill();
      const loaded = await place.load();
      if (loaded !== undefined) ids.add(loaded.id);
    }
    await source.close();
    expect(ids.size).toBe(1500);
  });
});
