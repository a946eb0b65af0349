import { describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import { type Redis, RedisReplyError } from "../../src/infra/redis.ts";
import { ATTEMPT_KEPT_MS, RECORD_KEPT_MS } from "../../src/lock/authority/authority.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { named, releaseOrder, renewOrder, takeOrder } from "./authorities.ts";
import { openRedisAuthorities } from "./redis-authorities.ts";
import { redisCommand } from "./redis-command.ts";
import { withRun } from "./spoilt-redis.ts";

const AWAY = { reason: "LOCK_AUTHORITY_UNAVAILABLE", kind: "unavailable" };
const RECORD = "holdfast:lock:{p00}:r:nightly";

/** A Redis that carries scripts of this name out, and whose answers to the first of them are lost. */
function losingAnswers(script: string, times: number, error: () => Error = cutOff): (redis: Redis) => Redis {
  let left = times;
  return (redis) =>
    withRun(redis, async (one, keys, args) => {
      const reply = await redis.run(one, keys, args);
      if (one.name !== script || left-- <= 0) return reply;
      throw error();
    });
}

function cutOff(): Error {
  return new UnavailableError("REDIS_UNAVAILABLE", "the connection was cut");
}

describe("locks over a Redis that fails", () => {
  it("are refused while it is frozen, by and by without asking it, and granted when it goes on", async () => {
    await using server = await startRedis();
    await using opened = await openRedisAuthorities({ url: server.url, commandTimeoutMs: 200 });
    const [{ authority }] = opened.instances;
    const held = await authority.take(takeOrder("nightly"));
    const grant = held.kind === "granted" ? held.lease.grant : { name: "nightly", token: 0 };
    server.pause();
    const asked = [
      () => authority.take(takeOrder("hourly")),
      () => authority.renew(renewOrder(grant)),
      () => authority.release(releaseOrder(grant)),
      () => authority.look("nightly"),
      () => authority.list({ prefix: "", owner: undefined, mayUse: () => true, limit: 10, after: undefined }),
      () => authority.remember("nightly", named("r"), "text"),
    ];
    for (const ask of asked) await expect(ask()).rejects.toMatchObject(AWAY);
    server.resume();
    const renewed = await until(() => authority.renew(renewOrder(grant)), { what: "Redis to be asked again" });
    expect(renewed).toMatchObject({ kind: "renewed" });
  });

  it("are not taken later by what a frozen Redis had not read yet", async () => {
    await using server = await startRedis();
    await using opened = await openRedisAuthorities({ url: server.url, commandTimeoutMs: 200 });
    const [{ authority }] = opened.instances;
    await authority.take(takeOrder("hourly"));
    server.pause();
    const late = takeOrder("nightly", { request: named("late"), ttlMs: 3_600_000 });
    const patience = performance.now() + 300;
    await expect(authority.take(late)).rejects.toMatchObject(AWAY);
    await until(() => performance.now() > patience, { what: "the end of all patience" });
    server.resume();
    const looked = await until(() => authority.look("nightly"), { what: "Redis to be asked again" });
    expect(looked).toEqual({ lease: undefined, lastToken: 0 });
  });

  it("are given back when nobody learned that they were taken", async () => {
    await using opened = await openRedisAuthorities({ count: 2, spoil: losingAnswers("lock-take", 1) });
    const [{ authority }] = opened.instances;
    await expect(authority.take(takeOrder("nightly", { ttlMs: 3_600_000 }))).rejects.toMatchObject(AWAY);
    const taken = await until(async () => (await authority.look("nightly")).lease === undefined, { what: "the lock" });
    expect(taken).toBe(true);
    expect((await authority.look("nightly")).lastToken).toBeGreaterThan(0);
  });

  it("are given back when others that were asked for together with them failed", async () => {
    const failing = losingAnswers("lock-take", 1, () => new RedisReplyError("ERR", "no more"));
    await using opened = await openRedisAuthorities({ spoil: failing });
    const [{ authority }] = opened.instances;
    await expect(authority.take(takeOrder("nightly", { ttlMs: 3_600_000 }))).rejects.toThrow("no more");
    await until(async () => (await authority.look("nightly")).lease === undefined, { what: "the lock" });
    expect((await authority.look("nightly")).lastToken).toBeGreaterThan(0);
  });

  it("are given back when Redis is reached again", async () => {
    await using server = await startRedis();
    const spoil = (redis: Redis) => losingAnswers("lock-take", 1)(refusing(redis, "lock-release", 1));
    await using opened = await openRedisAuthorities({ url: server.url, spoil });
    const [{ authority }] = opened.instances;
    await expect(authority.take(takeOrder("nightly", { ttlMs: 3_600_000 }))).rejects.toMatchObject(AWAY);
    expect(await redisCommand(server.url, "exists", RECORD)).toBe(1);
    await redisCommand(server.url, "client", "kill", "type", "normal");
    await until(async () => (await authority.look("nightly")).lease === undefined, { what: "the lock" });
  });

  it("are given back by and by when that fails for another reason", async () => {
    const spoil = (redis: Redis) => losingAnswers("lock-take", 1)(refusing(redis, "lock-release", 1));
    await using opened = await openRedisAuthorities({ spoil });
    const [{ authority }] = opened.instances;
    await expect(authority.take(takeOrder("nightly", { ttlMs: 3_600_000 }))).rejects.toMatchObject(AWAY);
    await until(async () => (await authority.look("nightly")).lease === undefined, { what: "the lock" });
  });

  it("are granted to the retry of a take whose answer was lost", async () => {
    await using opened = await openRedisAuthorities({ spoil: losingAnswers("lock-take", 1) });
    const [{ authority }] = opened.instances;
    const order = takeOrder("nightly", { request: named("r") });
    await expect(authority.take(order)).rejects.toMatchObject(AWAY);
    const { lastToken } = await authority.look("nightly");
    const again = await authority.take(order);
    expect(again).toMatchObject({ kind: "granted", lease: { grant: { token: lastToken, requestId: "r" } } });
  });

  it("can be renewed and given back where Redis has no memory left, and not be taken", async () => {
    await using server = await startRedis();
    await using opened = await openRedisAuthorities({ url: server.url });
    const [{ authority, redis }] = opened.instances;
    const taken = await authority.take(takeOrder("nightly"));
    const grant = taken.kind === "granted" ? taken.lease.grant : { name: "nightly", token: 0 };
    await redis.command("config", "set", "maxmemory", 1);
    await expect(authority.take(takeOrder("hourly"))).rejects.toMatchObject(AWAY);
    expect(await authority.renew(renewOrder(grant))).toMatchObject({ kind: "renewed" });
    expect(await authority.release(releaseOrder(grant))).toMatchObject({ released: true });
    expect(await authority.look("nightly")).toEqual({ lease: undefined, lastToken: grant.token });
  });

  it("are refused, saying why, where Redis does not tell which life it is in", async () => {
    await using server = await startRedis();
    await redisCommand(server.url, "acl", "setuser", "default", "-info");
    await using opened = await openRedisAuthorities({ url: server.url });
    const [{ authority }] = opened.instances;
    await expect(authority.take(takeOrder("nightly"))).rejects.toThrow(/info/i);
    await expect(authority.take(takeOrder("nightly"))).rejects.toMatchObject(AWAY);
  });

  it.each([
    ["a list", ["rpush", RECORD, "x"]],
    ["a short text", ["set", RECORD, "x"]],
    ["a long text", ["set", RECORD, "h".repeat(200)]],
    ["a packed number", ["set", RECORD, Buffer.from([...Buffer.alloc(14, "h"), 7])]],
    ["a packed list that is too short", ["set", RECORD, Buffer.from([...Buffer.alloc(14, "h"), 0x91, 7])]],
  ])(
    "say so where somebody else has put %s under a lock's key, and no other lock suffers",
    async (_, [name, ...args]) => {
      await using opened = await openRedisAuthorities();
      const [{ authority, redis }] = opened.instances;
      const others = ["one", "two"];
      await Promise.all(others.map((other) => authority.take(takeOrder(`before/${other}`))));
      await redis.command(String(name), ...args);
      const before = await Promise.all(
        others.map(async (other) => (await authority.look(`before/${other}`)).lastToken),
      );
      // What is asked at once goes to Redis together.
      const [taken, first, second, released, freed] = await Promise.allSettled([
        authority.take(takeOrder("nightly")),
        ...others.map((other) => authority.take(takeOrder(other))),
        authority.release(releaseOrder({ name: "nightly", token: 1 })),
        authority.release(releaseOrder({ name: "before/one", token: before[0] ?? 0 })),
      ]);
      const foreign = { ...AWAY, message: expect.stringContaining("not Holdfast's") };
      expect([taken, released]).toMatchObject([{ reason: foreign }, { reason: foreign }]);
      expect([first, second]).toMatchObject([{ value: { kind: "granted" } }, { value: { kind: "granted" } }]);
      expect(freed).toMatchObject({ value: { released: true } });
      await expect(authority.renew(renewOrder({ name: "nightly", token: 1 }))).rejects.toMatchObject(foreign);
      await expect(authority.look("nightly")).rejects.toMatchObject(foreign);
      const { leases } = await authority.list(ALL);
      expect(leases.map(({ grant }) => grant.name).sort()).toEqual(["before/two", "one", "two"]);
      await redis.command("del", RECORD);
      expect(await authority.take(takeOrder("nightly"))).toMatchObject({ kind: "granted" });
    },
  );

  it("leave nothing behind for ever", async () => {
    await using opened = await openRedisAuthorities();
    const [{ authority, redis }] = opened.instances;
    const taken = await authority.take(takeOrder("nightly", { ttlMs: 3_600_000, request: named("r") }));
    const grant = taken.kind === "granted" ? taken.lease.grant : { name: "nightly", token: 0 };
    const attempt = "holdfast:lock:{p00}:a:7:nightly:r";
    const kept = async (key: string) => Number(await redis.command("pttl", key));
    expect(await kept(RECORD)).toBeGreaterThan(RECORD_KEPT_MS);
    expect(await kept(attempt)).toBeGreaterThan(ATTEMPT_KEPT_MS);
    await authority.renew(renewOrder(grant, { ttlMs: 7_200_000 }));
    expect(await kept(RECORD)).toBeGreaterThan(RECORD_KEPT_MS + 3_600_000);
    expect(await kept(attempt)).toBeGreaterThan(ATTEMPT_KEPT_MS + 3_600_000);
    await authority.release(releaseOrder(grant));
    expect(await kept(RECORD)).toBeGreaterThan(RECORD_KEPT_MS);
    expect(await redis.scan("*", "0", 1_000)).toMatchObject({ cursor: "0" });
    const { keys } = await redis.scan("*", "0", 1_000);
    const forEver = await Promise.all(keys.map(async (key) => ((await kept(key)) < 0 ? [key] : [])));
    expect(forEver.flat()).toEqual(["holdfast:lock:{p00}:life"]);
  });
});

describe("a listing of locks in Redis", () => {
  it("has every lock that is held, a bounded part of it in each call, however they are called", async () => {
    await using opened = await openRedisAuthorities({ count: 1 });
    const [{ authority }] = opened.instances;
    const names = Array.from({ length: 3_000 }, (_, at) => `many/[a*?\\${at}`);
    await Promise.all(names.map((name) => authority.take(takeOrder(name, { owner: name.endsWith("7") ? "o" : "p" }))));
    await authority.take(takeOrder("many/ab*c"));
    const found = new Set<string>();
    const pages: number[] = [];
    let after: string | undefined;
    do {
      const page = await authority.list({ ...ALL, prefix: "many/[a*", owner: "o", limit: 40, after });
      for (const { grant } of page.leases) found.add(grant.name);
      pages.push(page.leases.length);
      after = page.after;
    } while (after !== undefined);
    expect([...found].sort()).toEqual(names.filter((name) => name.endsWith("7")).sort());
    expect(Math.max(...pages)).toBeLessThanOrEqual(40);
    const none = await authority.list({ ...ALL, mayUse: () => false });
    expect(none.leases).toEqual([]);
    expect(none.after).toBeDefined();
  });

  it("refuses a token that it never gave", async () => {
    await using opened = await openRedisAuthorities();
    const [{ authority }] = opened.instances;
    for (const after of ["", "nightly", "redis:", "redis:[]", 'redis:["x"]', "redis:{", 'redis:["-1"]']) {
      const listed = authority.list({ ...ALL, after });
      await expect(listed).rejects.toMatchObject({ violations: [{ field: "page_token" }] });
    }
  });
});

const ALL = { prefix: "", owner: undefined, mayUse: () => true, limit: 10, after: undefined };

/** A Redis that the first scripts of this name do not reach. */
function refusing(redis: Redis, script: string, times: number): Redis {
  let left = times;
  return withRun(redis, async (one, keys, args) => {
    if (one.name === script && left-- > 0) throw new UnavailableError("REDIS_UNAVAILABLE", "not connected");
    return await redis.run(one, keys, args);
  });
}
