import { afterEach, describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import {
  createRedis,
  defineScript,
  parseRedisUrl,
  type Redis,
  type RedisOptions,
  RedisReplyError,
} from "../../src/infra/redis.ts";
import { freePort } from "../support/free-port.ts";
import { freshRedis } from "../support/fresh.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

const opened: Redis[] = [];

function open(url: string, overrides: Partial<RedisOptions> = {}): Redis {
  const parsed = parseRedisUrl(url);
  if (typeof parsed === "string") throw new Error(parsed);
  const redis = createRedis({
    mode: "single",
    nodes: [],
    commandTimeoutMs: 500,
    connectTimeoutMs: 1_000,
    ...parsed,
    ...overrides,
  });
  opened.push(redis);
  return redis;
}

afterEach(async () => {
  await Promise.all(opened.splice(0).map((redis) => redis.close()));
});

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
    opened.push(blocking);
    const popped = blocking.command("blpop", "list", 0);
    await until(async () => String(await redis.command("client", "list")).includes("cmd=blpop"), {
      what: "BLPOP to block",
    });
    await redis.command("rpush", "list", "x");
    expect(await popped).toEqual(["list", "x"]);
  });
});

describe("a Redis that does not answer", () => {
  it("rejects when nothing listens, and connects by itself once something does", async () => {
    const port = await freePort();
    const redis = open(`redis://127.0.0.1:${port}`);
    await expect(redis.ping()).rejects.toMatchObject({ name: "UnavailableError", reason: "REDIS_UNAVAILABLE" });
    expect(redis.connected).toBe(false);
    await using server = await startRedis({ port });
    await until(() => redis.connected, { what: "the connection" });
    expect(await redis.command("set", "k", "v")).toBe("OK");
    expect(server.port).toBe(port);
  });

  it("rejects every command on a frozen server, then at once, and works again when it thaws", async () => {
    await using server = await startRedis();
    const redis = open(server.url, { commandTimeoutMs: 300 });
    await redis.ping();
    server.pause();
    const results = await Promise.allSettled(
      Array.from({ length: 50 }, (_, index) => redis.command("set", `k${index}`, "v")),
    );
    expect(results.every((result) => result.status === "rejected" && result.reason instanceof UnavailableError)).toBe(
      true,
    );
    expect(redis.connected).toBe(false);

    // The frozen connection is gone: these fail without waiting, in the same turn of the loop.
    const outcome = await Promise.race([redis.ping().catch(() => "rejected"), new Promise(setImmediate)]);
    expect(outcome).toBe("rejected");

    server.resume();
    await until(() => redis.connected, { what: "the connection" });
    await redis.ping();
  });

  it("gives up on a server that accepts connections but never greets", async () => {
    await using server = await startRedis();
    await using proxy = await startTcpProxy(server.port);
    proxy.freeze();
    const redis = open(`redis://127.0.0.1:${proxy.port}`, { commandTimeoutMs: 200, connectTimeoutMs: 300 });
    await expect(redis.ping()).rejects.toBeInstanceOf(UnavailableError);
    await until(() => proxy.connections() > 1, { what: "another attempt" });
    proxy.thaw();
    await until(() => redis.connected, { what: "the connection" });
  });

  it("runs nothing later that it rejected", async () => {
    await using server = await startRedis();
    await using proxy = await startTcpProxy(server.port);
    const redis = open(`redis://127.0.0.1:${proxy.port}`, { commandTimeoutMs: 300 });
    await redis.ping();
    proxy.cut();
    await until(() => !redis.connected, { what: "the cut to be noticed" });
    await expect(redis.command("incr", "n")).rejects.toBeInstanceOf(UnavailableError);
    proxy.restore();
    await until(() => redis.connected, { what: "the connection" });
    expect(await redis.getBuffers(["n"])).toEqual([null]);
  });

  it("says with each connect which run of the server it met", async () => {
    await using server = await startRedis();
    const runs: string[] = [];
    const redis = open(server.url);
    redis.onConnected((runId) => runs.push(runId));
    await redis.ping();
    await server.kill();
    await server.restart();
    await until(() => runs.length > 1, { what: "the second connect" });
    expect(new Set(runs).size).toBe(runs.length);
    expect((await redis.info()).runId).toBe(runs.at(-1));
  });

  it.each([
    ["a wrong password", "redis://user:hunter2@", ["--requirepass", "secret"]],
    ["no password", "redis://", ["--requirepass", "secret"]],
  ])("is unavailable with %s, and repeats none", async (_, prefix, args) => {
    await using server = await startRedis({ args });
    const redis = open(`${prefix}127.0.0.1:${server.port}`);
    const error = await redis.ping().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UnavailableError);
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toMatch(/hunter2|secret/);
  });

  it("counts a Redis that takes no writes as unavailable", async () => {
    await using full = await startRedis({ args: ["--maxmemory", "100kb", "--maxmemory-policy", "noeviction"] });
    await expect(open(full.url).command("set", "k", "v")).rejects.toMatchObject({ reason: "REDIS_UNAVAILABLE" });
    await using primary = await startRedis();
    await using replica = await startRedis({ args: ["--replicaof", "127.0.0.1", String(primary.port)] });
    await expect(open(replica.url).command("set", "k", "v")).rejects.toMatchObject({ reason: "REDIS_UNAVAILABLE" });
  });
});
