import { describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import { defineScript } from "../../src/infra/redis.ts";
import { freePort } from "../support/free-port.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { open } from "./redis-clients.ts";

function nextTurn(): Promise<undefined> {
  return new Promise((resolve) => setImmediate(resolve, undefined));
}

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
    const outcome = await Promise.race([redis.ping().catch(() => "rejected"), nextTurn()]);
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
    const crowded = open(full.url);
    const set = defineScript({ name: "set", keys: 1, lua: "return redis.call('SET', KEYS[1], ARGV[1])" });
    await expect(crowded.command("set", "k", "v")).rejects.toMatchObject({ reason: "REDIS_UNAVAILABLE" });
    await expect(crowded.run(set, ["k"], ["v"])).rejects.toMatchObject({ reason: "REDIS_UNAVAILABLE" });
    await using primary = await startRedis();
    await using replica = await startRedis({ args: ["--replicaof", "127.0.0.1", String(primary.port)] });
    await expect(open(replica.url).command("set", "k", "v")).rejects.toMatchObject({ reason: "REDIS_UNAVAILABLE" });
  });

  it("never falls back to another database when the one it should use does not exist", async () => {
    await using server = await startRedis();
    const redis = open(`${server.url}/99`);
    await expect(redis.command("set", "k", "v")).rejects.toMatchObject({ reason: "REDIS_UNAVAILABLE" });
    expect(redis.connected).toBe(false);
    expect(await open(server.url).command("dbsize")).toBe(0);
  });

  it("serves an account that may not call INFO or CLIENT", async () => {
    await using server = await startRedis();
    const rules = ["on", ">secret", "~*", "+get", "+set", "+ping", "-info", "-client"];
    await open(server.url).command("acl", "setuser", "modest", ...rules);
    const redis = open(`redis://modest:secret@127.0.0.1:${server.port}`);
    expect(await redis.command("set", "k", "v")).toBe("OK");
    await expect(redis.command("del", "k")).rejects.toMatchObject({ reason: "REDIS_UNAVAILABLE" });
    expect(redis.connected).toBe(true);
  });

  it("serves nothing from a Redis that is still loading its data", async () => {
    await using server = await startRedis({ args: ["--appendonly", "yes", "--key-load-delay", "3000"] });
    const redis = open(server.url);
    const keys = Array.from({ length: 300 }, (_, index) => `k${index}`);
    await redis.command("mset", ...keys.flatMap((key) => [key, "v"]));
    await server.kill();
    const restarted = server.restart();
    const answers = new Set<string>();
    await until(
      async () => {
        const [value] = await redis.getBuffers(["k299"]).catch((error: Error) => [error.message]);
        answers.add(String(value));
        return String(value) === "v";
      },
      { what: "the data to be there", intervalMs: 1 },
    );
    await restarted;
    expect([...answers].filter((answer) => !answer.startsWith("Redis is not available"))).toEqual(["v"]);
  });

  it("settles every command and stays whole while the connection flaps under load", async () => {
    await using server = await startRedis();
    await using proxy = await startTcpProxy(server.port);
    const redis = open(`redis://127.0.0.1:${proxy.port}`);
    let flapping = true;
    let wrong = 0;
    const load = Array.from({ length: 20 }, async (_, worker) => {
      while (flapping) {
        const text = `${worker}:${Math.random()}`;
        const echo = await redis.command("echo", text).catch(() => nextTurn());
        if (echo !== undefined && echo !== text) wrong += 1;
      }
    });
    for (let round = 0; round < 10; round++) {
      await until(() => redis.connected, { what: "the connection" });
      proxy.cut();
      await until(() => !redis.connected, { what: "the cut to be noticed" });
      proxy.restore();
    }
    flapping = false;
    await Promise.all(load);
    // A reply that answers another command than its own would show here.
    expect(wrong).toBe(0);
    await until(() => redis.connected, { what: "the connection" });
    expect(await redis.command("echo", "whole")).toBe("whole");
  });
});
