import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { createRedisBackplane } from "../../src/infra/backplane-redis.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createRedis, defineScript, parseRedisUrl, type Redis } from "../../src/infra/redis.ts";
import { slotOf } from "../../src/infra/redis-slot.ts";
import { type RedisCluster, startRedisCluster } from "../support/redis-cluster.ts";
import { until } from "../support/until.ts";

const write = defineScript({
  name: "write",
  keys: 1,
  lua: "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])",
});
const copy = defineScript({
  name: "copy",
  keys: 2,
  lua: "redis.call('SET', KEYS[2], redis.call('GET', KEYS[1])) return redis.call('GET', KEYS[2])",
});

let cluster: RedisCluster;

beforeAll(async () => {
  cluster = await startRedisCluster();
});
afterAll(() => cluster.stop());

/** Knows of one node only, and finds the others. */
function connect(commandTimeoutMs = 20_000): Redis {
  const options = parseRedisUrl(String(cluster.urls[0]).replace("redis:", "redis-cluster:"));
  if (typeof options === "string") throw new Error(options);
  const redis = createRedis({
    mode: "cluster",
    nodes: [],
    commandTimeoutMs,
    connectTimeoutMs: 2_000,
    ...options,
  });
  onTestFinished(() => redis.close());
  return redis;
}

/** A connection to one node, as an operator has it. */
function operator(port: number): Redis {
  const nodes = [{ host: "127.0.0.1", port }];
  const redis = createRedis({ mode: "single", nodes, commandTimeoutMs: 5_000, connectTimeoutMs: 5_000 });
  onTestFinished(() => redis.close());
  return redis;
}

async function scanAll(redis: Redis, pattern: string): Promise<Set<string>> {
  const found = new Set<string>();
  let cursor = "0";
  do {
    const step = await redis.scan(pattern, cursor, 100);
    for (const key of step.keys) found.add(key);
    cursor = step.cursor;
  } while (cursor !== "0");
  return found;
}

describe("a Redis Cluster", () => {
  it("is one place for keys that live on all its nodes", async () => {
    const redis = connect();
    const keys = Array.from({ length: 300 }, (_, index) => `spread:${index}`);
    await Promise.all(keys.map((key) => redis.run(write, [key], [`value of ${key}`])));
    const values = await redis.getBuffers([...keys, "missing"]);
    expect(values.map(String)).toEqual([...keys.map((key) => `value of ${key}`), "null"]);
    expect(await scanAll(redis, "spread:*")).toEqual(new Set(keys));
    expect(redis.connected).toBe(true);
    const sizes = await Promise.all(cluster.nodes.map(({ port }) => operator(port).command("dbsize")));
    expect(sizes.every((size) => Number(size) > 0)).toBe(true);
    expect((await redis.info()).runId.split(",")).toHaveLength(3);
  });

  it("keeps serving a slot while it is moved from one node to another, and after", async () => {
    const redis = connect();
    const keys = Array.from({ length: 100 }, (_, index) => `{moving}:${index}`);
    await Promise.all(keys.map((key) => redis.command("set", key, "before")));
    const slot = slotOf("moving");
    const owner = await ownerOf(slot);
    const source = operator(owner);
    const target = cluster.nodes.find(({ port }) => port !== owner)?.port ?? 0;
    const taker = operator(target);
    const [sourceId, targetId] = [await source.command("cluster", "myid"), await taker.command("cluster", "myid")];
    await taker.command("cluster", "setslot", slot, "importing", String(sourceId));
    await source.command("cluster", "setslot", slot, "migrating", String(targetId));

    // Half of the keys have gone: these are asked for at the new node, the others at the old one.
    await source.command("migrate", "127.0.0.1", target, "", 0, 5_000, "keys", ...keys.slice(0, 50));
    expect((await redis.getBuffers(keys)).map(String)).toEqual(keys.map(() => "before"));
    expect(await redis.run(write, ["{moving}:0"], ["during"])).toBe("during");
    expect(await redis.run(write, ["{moving}:99"], ["during"])).toBe("during");
    expect(await redis.run(write, ["{moving}:new"], ["during"])).toBe("during");
    expect(await redis.run(copy, ["{moving}:0", "{moving}:1"], [])).toBe("during");
    // Keys on both sides at once: no node can run this before the move is over.
    const torn = redis.run(copy, ["{moving}:0", "{moving}:98"], []);
    await source.command("migrate", "127.0.0.1", target, "", 0, 5_000, "keys", ...keys.slice(50));
    for (const redisOfNode of [taker, source, ...cluster.nodes.map(({ port }) => operator(port))]) {
      await redisOfNode.command("cluster", "setslot", slot, "node", String(targetId));
    }
    expect(await torn).toBe("during");

    expect(await redis.run(write, ["{moving}:2"], ["after"])).toBe("after");
    const expected = keys.map(
      (_, index) => ({ 0: "during", 1: "during", 2: "after", 98: "during", 99: "during" })[index] ?? "before",
    );
    expect((await redis.getBuffers(keys)).map(String)).toEqual(expected);
    expect(await scanAll(redis, "{moving}:*")).toEqual(new Set([...keys, "{moving}:new"]));
  });

  it("fails only for the keys of a node that is frozen, and serves them again when it thaws", async () => {
    const redis = connect(500);
    for (const { port } of cluster.nodes) {
      await operator(port).command("config", "set", "cluster-require-full-coverage", "no");
    }
    const keyOf = await keysByPort();
    await Promise.all([...keyOf.values()].map((key) => redis.command("set", key, "v")));
    const [frozen, ...others] = cluster.nodes;
    frozen?.pause();
    await expect(redis.command("get", keyOf.get(frozen?.port ?? 0) ?? "")).rejects.toBeInstanceOf(UnavailableError);
    expect(redis.connected).toBe(false);
    for (const { port } of others) expect(await redis.command("get", keyOf.get(port) ?? "")).toBe("v");
    frozen?.resume();
    await until(() => redis.connected, { what: "all nodes to be reached" });
    expect(await redis.command("get", keyOf.get(frozen?.port ?? 0) ?? "")).toBe("v");
  });

  it("is found again after all its nodes were restarted", async () => {
    const redis = connect(500);
    await redis.command("set", "k", "v");
    for (const node of cluster.nodes) await node.kill();
    await until(() => !redis.connected, { what: "the loss to be noticed" });
    await expect(redis.command("get", "k")).rejects.toBeInstanceOf(UnavailableError);
    for (const node of cluster.nodes) await node.restart();
    await until(() => redis.command("set", "k", "w"), { what: "a write" });
    await until(() => redis.connected, { what: "all nodes to be reached" });
  });

  it("carries the backplane between instances that listen on different nodes", async () => {
    const [redisA, redisB] = [connect(), connect()];
    const a = createRedisBackplane({ redis: redisA, instanceId: "a", heartbeatMs: 250 });
    const b = createRedisBackplane({ redis: redisB, instanceId: "b", heartbeatMs: 250 });
    onTestFinished(async () => {
      await Promise.all([a.close(), b.close()]);
    });
    const heard: string[] = [];
    b.subscribe("t", (message) => heard.push(message));
    await until(() => a.live && b.live, { what: "both to be live" });
    const messages = Array.from({ length: 1_000 }, (_, index) => `${index}`);
    await Promise.all(messages.map((message) => a.publish("t", message)));
    await until(() => heard.length >= messages.length, { what: "all messages" });
    expect(heard).toEqual(messages);
  });
});

async function slotsOf(): Promise<[first: number, last: number, port: number][]> {
  const reply = await operator(cluster.nodes[0]?.port ?? 0).command("cluster", "slots");
  if (!Array.isArray(reply)) throw new Error("no slots");
  return reply.map((range) => [Number(range[0]), Number(range[1]), Number(range[2][1])]);
}

async function ownerOf(slot: number): Promise<number> {
  const range = (await slotsOf()).find(([first, last]) => first <= slot && slot <= last);
  if (range === undefined) throw new Error(`no one owns slot ${slot}`);
  return range[2];
}

/** A key for each node. */
async function keysByPort(): Promise<Map<number, string>> {
  const ranges = await slotsOf();
  const keys = new Map<number, string>();
  for (let index = 0; keys.size < cluster.nodes.length; index++) {
    const slot = slotOf(`key:${index}`);
    const port = ranges.find(([first, last]) => first <= slot && slot <= last)?.[2] ?? 0;
    if (!keys.has(port)) keys.set(port, `key:${index}`);
  }
  return keys;
}
