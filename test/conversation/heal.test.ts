import { describe, expect, it } from "vitest";
import { copyKeys } from "../../src/conversation/hot/copy-keys.ts";
import type { Database } from "../../src/infra/database.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { freshRedis } from "../support/fresh.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { believing, copiesOf, type HotInstance, keyOf, openTruth, startHot } from "./hot-parts.ts";

async function unhealed(database: Database): Promise<number> {
  const [row] = await database.query<{ count: number }>(
    "SELECT count(*) AS count FROM conversation WHERE unhealed <> 0",
  );
  return Number(row?.count);
}

/** Until the breaker opens, so that nothing below is answered by waiting. */
async function opened(one: HotInstance): Promise<void> {
  await until(
    async () => {
      await one.save("anything", 0);
      return one.breaker.state === "open";
    },
    { what: "the breaker to open" },
  );
}

async function closed(one: HotInstance): Promise<void> {
  await until(
    async () => {
      await one.breaker.forceTrial();
      return one.breaker.state === "closed";
    },
    { what: "the breaker to close" },
  );
}

describe.each(["killed", "frozen"] as const)("while Redis is %s", (how) => {
  const fail = (server: RedisServer) => (how === "killed" ? server.kill() : server.pause());
  const recover = (server: RedisServer) => (how === "killed" ? server.restart() : server.resume());

  it("reads and writes go on, and no old version comes back", async () => {
    await using server = await startRedis({ args: ["--appendonly", "yes", "--appendfsync", "always"] });
    const { database } = await openTruth("postgres");
    const [one, other] = await Promise.all([0, 1].map(() => startHot({ database, redisUrl: server.url })));
    if (one === undefined || other === undefined) throw new Error("no instances");
    await believing(one, other);
    for (const id of ["saved", "appended", "deleted", "untouched"]) {
      await one.save(id, 1);
      await copiesOf([one, other], id, 1);
    }
    await fail(server);
    await opened(one);
    await opened(other);
    await one.save("saved", 2);
    await one.append("appended", "m1");
    await one.ledger.carryOut({ kind: "delete", key: keyOf("deleted"), requestId: "" });
    expect(await one.value("saved")).toEqual({ value: 2, layer: "postgres" });
    expect((await one.get("saved")).degraded).toBe(true);
    expect(await unhealed(database)).toBe(4);
    await recover(server);
    await closed(other);
    await closed(one);
    for (const instance of [one, other]) {
      expect((await instance.value("saved")).value).toBe(2);
      expect((await instance.get("appended")).what?.held.messageCount).toBe(1);
      expect((await instance.value("deleted")).value).toBeUndefined();
      expect((await instance.value("untouched")).value).toBe(1);
    }
    expect(await unhealed(database)).toBe(0);
    await believing(one, other);
    await copiesOf([one, other], "saved", 2);
    expect((await one.get("saved")).degraded).toBe(false);
  });

  it("changes for which a breaker does not open are healed as soon as Redis is back", async () => {
    await using server = await startRedis({ args: ["--appendonly", "yes", "--appendfsync", "always"] });
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: server.url, failureThreshold: 1_000_000 });
    await believing(one);
    await one.save("c", 1);
    await copiesOf([one], "c", 1);
    await fail(server);
    await one.save("c", 2);
    expect((await one.value("c")).value).toBe(2);
    await recover(server);
    await until(() => one.redis.connected, { what: "the connection" });
    expect((await one.value("c")).value).toBe(2);
    await until(async () => (await unhealed(database)) === 0, { what: "the healing" });
    await believing(one);
    await until(async () => (await one.value("c")).layer === "redis", { what: "a copy" });
    expect((await one.value("c")).value).toBe(2);
  });
});

describe("when Redis comes back", () => {
  it("with data of old, nothing of it is believed, though nobody knows what was lost", async () => {
    await using server = await startRedis();
    const { database } = await openTruth("postgres");
    const [one, other] = await Promise.all(
      [0, 1].map(() => startHot({ database, redisUrl: server.url, failureThreshold: 1_000_000 })),
    );
    if (one === undefined || other === undefined) throw new Error("no instances");
    await believing(one, other);
    await one.save("c", 1);
    await copiesOf([one, other], "c", 1);
    await one.redis.command("save");
    await one.save("c", 2);
    await copiesOf([one, other], "c", 2);
    expect(await unhealed(database)).toBe(0);
    await server.kill();
    await server.restart();
    const raw = async () => (await one.redis.getBuffers([copyKeys(keyOf("c")).copy]))[0]?.includes("value");
    await until(raw, { what: "the copy of old to be there" });
    // One that has not seen the newer version either.
    const next = await startHot({ database, redisUrl: server.url });
    await believing(one, other, next);
    expect(await next.copied("c")).toBeUndefined();
    for (const instance of [next, one, other]) expect((await instance.value("c")).value).toBe(2);
    await copiesOf([one, other, next], "c", 2);
  });

  it("to one that had nothing to say meanwhile, that one does not believe what others could not tell Redis of", async () => {
    const redisUrl = new URL(await freshRedis());
    const { database } = await openTruth("postgres");
    const startThrough = async (proxy: { readonly port: number }) => {
      const url = new URL(redisUrl);
      url.port = String(proxy.port);
      return startHot({ database, redisUrl: url.href, failureThreshold: 1_000_000 });
    };
    await using proxy = await startTcpProxy(Number(redisUrl.port));
    await using otherProxy = await startTcpProxy(Number(redisUrl.port));
    const [one, idle] = [await startThrough(proxy), await startThrough(otherProxy)];
    await believing(one, idle);
    await one.save("c", 1);
    await copiesOf([one, idle], "c", 1);
    proxy.cut();
    otherProxy.cut();
    await until(() => !one.redis.connected && !idle.redis.connected, { what: "the connections to be lost" });
    await one.save("c", 2);
    otherProxy.restore();
    await until(() => idle.redis.connected, { what: "the connection" });
    expect((await idle.value("c")).value).toBe(2);
    await copiesOf([idle], "c", 2);
    expect(await unhealed(database)).toBe(0);
  });

  it("empty, copies are made anew", async () => {
    await using server = await startRedis();
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: server.url, failureThreshold: 1_000_000 });
    await believing(one);
    await one.save("c", 1);
    await copiesOf([one], "c", 1);
    await server.kill();
    await server.restart();
    await until(() => one.redis.connected, { what: "the connection" });
    await believing(one);
    expect(await one.value("c")).toEqual({ value: 1, layer: "sqlite" });
    await copiesOf([one], "c", 1);
  });

  it("and SQL is away by then, copies are not believed before it is back", async () => {
    await using server = await startRedis({ args: ["--appendonly", "yes", "--appendfsync", "always"] });
    const { database } = await openTruth();
    let isAway = false;
    const away: Database = {
      ...database,
      query: (...args) =>
        isAway ? Promise.reject(new UnavailableError("SQL_UNAVAILABLE", "away")) : database.query(...args),
    };
    const one = await startHot({ database: away, redisUrl: server.url, failureThreshold: 1_000_000, sweepMs: 20 });
    await believing(one);
    await one.save("c", 1);
    await copiesOf([one], "c", 1);
    server.pause();
    await one.save("c", 2);
    isAway = true;
    server.resume();
    await until(() => one.redis.connected, { what: "the connection" });
    for (let i = 0; i < 20; i++) {
      expect(await one.copied("c")).toBeUndefined();
      await expect(one.value("c")).rejects.toThrow(UnavailableError);
      await one.copies.heal();
    }
    isAway = false;
    await until(async () => (await one.value("c")).layer === "redis", { what: "copies to be believed" });
    expect((await one.value("c")).value).toBe(2);
  });
});

describe("what an instance cannot tell Redis of", () => {
  it("is healed by another one that can, and both say the same", async () => {
    const redisUrl = new URL(await freshRedis());
    await using proxy = await startTcpProxy(Number(redisUrl.port));
    const { database } = await openTruth("postgres");
    const other = await startHot({ database, redisUrl: redisUrl.href, sweepMs: 20 });
    redisUrl.port = String(proxy.port);
    const cut = await startHot({ database, redisUrl: redisUrl.href });
    await believing(cut, other);
    await cut.save("c", 1);
    await copiesOf([cut, other], "c", 1);
    proxy.cut();
    await cut.save("c", 2);
    await cut.save("new", 2);
    expect((await cut.value("c")).value).toBe(2);
    await until(async () => (await other.value("c")).value === 2, { what: "the other one to hear of it" });
    await copiesOf([other], "c", 2);
    expect((await cut.value("c")).value).toBe(2);
    await until(async () => (await unhealed(database)) === 0, { what: "the healing" });
  });

  it("and does not live to heal is healed by the next run, before that believes anything", async () => {
    const redisUrl = new URL(await freshRedis());
    await using proxy = await startTcpProxy(Number(redisUrl.port));
    const { database } = await openTruth();
    const before = await startHot({ database, redisUrl: redisUrl.href });
    await believing(before);
    await before.save("c", 1);
    await copiesOf([before], "c", 1);
    await before.close();
    const through = new URL(redisUrl);
    through.port = String(proxy.port);
    const doomed = await startHot({ database, redisUrl: through.href });
    await believing(doomed);
    proxy.cut();
    await doomed.save("c", 2);
    await doomed.close();
    expect(await unhealed(database)).toBe(1);
    const next = await startHot({ database, redisUrl: redisUrl.href });
    await until(() => next.redis.connected, { what: "the connection" });
    expect((await next.value("c")).value).toBe(2);
    await believing(next);
    expect((await next.value("c")).value).toBe(2);
    expect(await unhealed(database)).toBe(0);
  });
});
