import { describe, expect, it, onTestFinished } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import { defineScript, RedisReplyError } from "../../src/infra/redis.ts";
import { slotOf } from "../../src/infra/redis-slot.ts";
import { freshRedis } from "../support/fresh.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { open } from "./redis-clients.ts";

const appendAll = defineScript({
  name: "append-all",
  keys: 1,
  lua: "for i = 1, #ARGV do redis.call('APPEND', KEYS[1], ARGV[i]) end return {redis.call('GET', KEYS[1]), #ARGV}",
});

describe("a Redis that answers", () => {
  it("reads many values in the order of the keys, as bytes, with null for what is missing", async () => {
    const redis = open(await freshRedis());
    const bytes = Buffer.from([0, 255, 13, 10]);
    await redis.command("mset", "a", "eins", "b", bytes);
    expect(await redis.getBuffers(["b", "none", "a"])).toEqual([bytes, null, Buffer.from("eins")]);
    expect(await redis.getBuffers([])).toEqual([]);
  });

  it("runs a script by its digest, and by its text when the server forgot it", async () => {
    const redis = open(await freshRedis());
    expect(await redis.run(appendAll, ["k"], ["a", Buffer.from("b"), 3])).toEqual(["ab3", 3]);
    await redis.command("script", "flush");
    expect(await redis.run(appendAll, ["k"], ["!"])).toEqual(["ab3!", 1]);
    const asBytes = defineScript({ ...appendAll, keys: 1, buffers: true });
    expect(await redis.run(asBytes, ["k"], ["?"])).toEqual([Buffer.from("ab3!?"), 1]);
  });

  it("tells which life of the server a key is in, and of none while it is not reached", async () => {
    await using server = await startRedis();
    const redis = open(server.url);
    expect(redis.lifeOf("k")).toBeUndefined();
    const { runId } = await redis.info();
    expect(redis.lifeOf("k")).toBe(runId);
    await server.kill();
    await until(() => redis.lifeOf("k") === undefined, { what: "the connection to be lost" });
    await server.restart();
    await until(() => redis.lifeOf("k"), { what: "the next life" });
    expect(redis.lifeOf("k")).not.toBe(runId);
  });

  it("refuses a script call with the wrong number of keys", async () => {
    const redis = open(await freshRedis());
    await expect(redis.run(appendAll, ["a", "b"], [])).rejects.toThrow("append-all takes 1 keys, got 2");
  });

  it("tells a refused command from an absent Redis", async () => {
    const redis = open(await freshRedis());
    await redis.command("set", "k", "text");
    await expect(redis.command("lpush", "k", "x")).rejects.toMatchObject({
      name: "RedisReplyError",
      code: "WRONGTYPE",
    });
    await expect(redis.command("nonsense")).rejects.toBeInstanceOf(RedisReplyError);
  });

  it("walks all keys by SCAN", async () => {
    const redis = open(await freshRedis());
    const keys = Array.from({ length: 500 }, (_, index) => `k:${index}`);
    await redis.command("mset", ...keys.flatMap((key) => [key, "v"]), "other", "v");
    const seen = new Set<string>();
    let cursor = "0";
    do {
      const step = await redis.scan("k:*", cursor, 50);
      for (const key of step.keys) seen.add(key);
      cursor = step.cursor;
    } while (cursor !== "0");
    expect(seen).toEqual(new Set(keys));
  });

  it("reports on itself", async () => {
    const redis = open(await freshRedis());
    const info = await redis.info();
    expect(info.version).toMatch(/^\d+\.\d+/);
    expect(info.runId).toMatch(/^[0-9a-f]{40}$/);
    expect(info.usedMemoryBytes).toBeGreaterThan(0);
    expect(info.connectedClients).toBeGreaterThan(0);
    expect(await redis.ping()).toBeGreaterThan(0);
  });

  it("answers what is under way before it closes, and rejects what comes after", async () => {
    const redis = open(await freshRedis());
    await redis.ping();
    const pending = Array.from({ length: 100 }, (_, index) => redis.command("incrby", "n", index));
    await redis.close();
    await expect(Promise.all(pending)).resolves.toHaveLength(100);
    await expect(redis.ping()).rejects.toBeInstanceOf(UnavailableError);
  });

  it("keeps blocking reads on connections of their own", async () => {
    const url = await freshRedis();
    const redis = open(url);
    const blocking = redis.withCommandTimeout(60_000);
    onTestFinished(() => blocking.close());
    const popped = blocking.command("blpop", "list", 0);
    await until(async () => String(await redis.command("client", "list")).includes("cmd=blpop"), {
      what: "BLPOP to block",
    });
    await redis.command("rpush", "list", "x");
    expect(await popped).toEqual(["list", "x"]);
  });
});

describe("a subscriber", () => {
  it("hears the channels it asked for, also after the connection was lost", async () => {
    await using server = await startRedis();
    const redis = open(server.url);
    const heard: string[] = [];
    const changes: string[] = [];
    const subscriber = redis.createSubscriber({
      onMessage: (channel, message) => heard.push(`${channel}:${message}`),
      onUp: () => changes.push("up"),
      onDown: () => changes.push("down"),
    });
    onTestFinished(() => subscriber.close());
    subscriber.subscribe("a");
    subscriber.subscribe("b");
    await until(() => subscriber.connected, { what: "the subscription" });
    expect(await redis.publish("a", "1")).toBe(1);
    subscriber.unsubscribe("b");
    subscriber.subscribe("c");
    await until(async () => (await redis.publish("c", "2")) === 1, { what: "the later channel" });
    await until(async () => (await redis.publish("b", "3")) === 0, { what: "the channel to be left" });
    subscriber.renew("a test wants it");
    await until(() => changes.length === 3 && subscriber.connected, { what: "the new connection" });
    expect(await redis.publish("a", "4")).toBe(1);
    expect(await redis.publish("b", "5")).toBe(0);
    await until(() => heard.includes("a:4"), { what: "the last message" });
    expect(heard.filter((text) => text.startsWith("a:"))).toEqual(["a:1", "a:4"]);
    expect(changes).toEqual(["up", "down", "up"]);
  });
});

describe("a slot", () => {
  it.each([
    ["123456789", 12_739],
    ["foo", 12_182],
    ["{user1000}.following", slotOf("user1000")],
    ["foo{}{bar}", slotOf(Buffer.from("foo{}{bar}"))],
    ["foo{{bar}}zap", slotOf("{bar")],
    ["foo{bar}{zap}", slotOf("bar")],
    ["", 0],
  ])("of %j is the one that Redis takes", async (key, slot) => {
    expect(slotOf(key)).toBe(slot);
    await using node = await startRedis({ args: ["--cluster-enabled", "yes"] });
    expect(await open(node.url).command("cluster", "keyslot", key)).toBe(slot);
  });
});
