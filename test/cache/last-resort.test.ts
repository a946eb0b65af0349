import { describe, expect, it, onTestFinished } from "vitest";
import { createMemoryStore } from "../../src/cache/memory.ts";
import type { Draft } from "../../src/cache/record.ts";
import { createVersions } from "../../src/cache/version.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { movedClock } from "../support/moved-clock.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { type Instance, startInstance } from "./instance.ts";

/** An instance whose ways to Redis and to Postgres can both be cut. */
async function setup() {
  const parts = new AsyncDisposableStack();
  onTestFinished(() => parts.disposeAsync());
  const through = async (target: string) => {
    const url = new URL(target);
    const proxy = parts.use(await startTcpProxy(Number(url.port)));
    url.port = String(proxy.port);
    return { proxy, url: url.href };
  };
  const redis = await through(await freshRedis());
  const sql = await through(await freshDatabase());
  const settings = { url: sql.url, poolSize: 4, statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 };
  const database = parts.adopt(openPostgres(settings), (it) => it.close());
  await migrate(database, migrations);
  const one = parts.use(await startInstance({ redisUrl: redis.url, database }));
  return { redis: redis.proxy, sql: sql.proxy, database, one };
}

async function cut(instance: Instance, ...proxies: TcpProxy[]): Promise<void> {
  for (const proxy of proxies) proxy.cut();
  await until(
    async () => {
      await instance.get("anything");
      return instance.breaker.state === "open";
    },
    { what: "the breaker to open" },
  );
}

async function redisBack(instance: Instance, proxy: TcpProxy): Promise<void> {
  proxy.restore();
  await until(
    async () => {
      await instance.breaker.forceTrial();
      return instance.breaker.state === "closed";
    },
    { what: "the breaker to close" },
  );
}

describe("with Redis and SQL both away", () => {
  it("every call is answered, marked degraded", async () => {
    const { redis, sql, one } = await setup();
    await one.set("k", "old", ["t"]);
    await one.add("counter", 5n);
    await cut(one, redis, sql);
    expect(await one.set("k", "new", ["t"])).toBe(true);
    expect(await one.value("k")).toBe("new");
    expect((await one.get("k")).degraded).toBe(true);
    expect(await one.add("n")).toBe(1n);
    expect(await one.add("n")).toBe(2n);
    expect(await one.invalidate(["t"])).toBe(true);
    expect(await one.value("k")).toBeUndefined();
    expect(await one.set("k", "newer", ["t"])).toBe(true);
    expect(await one.value("k")).toBe("newer");
    expect(await one.remove("k")).toBe(true);
    expect(await one.value("k")).toBeUndefined();
    expect((await one.cache.list(one.namespace, "", 10, "")).keys.map(({ key }) => key)).toEqual(["n"]);
  });

  it.each([
    ["Redis", "SQL"],
    ["SQL", "Redis"],
  ])("nothing is lost or doubled when %s comes back before %s", async (first) => {
    const { redis, sql, one } = await setup();
    for (const key of ["a", "b", "c", "gone"]) await one.set(key, "old", key === "c" ? ["t"] : []);
    await cut(one, redis);
    // SQL keeps these.
    await one.set("a", "in SQL");
    await one.set("b", "in SQL");
    expect(await one.add("n")).toBe(1n);
    await cut(one, sql);
    // And memory these.
    await one.set("b", "in memory");
    await one.remove("gone");
    await one.invalidate(["t"]);
    expect(await one.add("m")).toBe(1n);
    expect(await one.add("m")).toBe(2n);

    if (first === "Redis") {
      await redisBack(one, redis);
      // Redis has an older value of what SQL keeps: no answer may be that one.
      expect(await one.value("a")).toBeUndefined();
      expect(await one.value("b")).toBeOneOf(["in memory", undefined]);
      expect(await one.add("m")).toBe(3n);
      sql.restore();
    } else {
      sql.restore();
      await until(async () => (await one.value("a")) === "in SQL", { what: "SQL to answer again" });
      expect(await one.value("b")).toBe("in memory");
      expect(await one.value("gone")).toBeUndefined();
      expect(await one.add("m")).toBe(3n);
      expect(await one.add("n")).toBe(2n);
      await redisBack(one, redis);
    }
    await until(async () => (await one.layers.unhealed()) === 0, { what: "everything to be healed" });
    await until(async () => (await one.value("a")) === "in SQL", { what: "the healed value" });
    expect(await one.value("b")).toBe("in memory");
    expect(await one.value("gone")).toBeUndefined();
    expect(await one.value("c")).toBeUndefined();
    expect(await one.value("m")).toBe("3");
    expect(await one.add("n")).toBe(first === "Redis" ? 2n : 3n);
    expect((await one.get("a")).degraded).toBe(false);
  });

  it("what memory kept and changes again with SQL back is kept in SQL, and outlives this process", async () => {
    const { redis, sql, one, database } = await setup();
    await cut(one, redis, sql);
    await one.set("k", "1");
    await one.set("other", "1");
    sql.restore();
    await until(() => database.ping().then(() => true), { what: "SQL to answer" });
    await one.set("k", "2");
    const rows = await database.query("SELECT key, unhealed FROM cache_entry");
    expect(rows).toEqual([{ key: "k", unhealed: 1 }]);
    expect(await one.value("k")).toBe("2");
    expect(await one.value("other")).toBe("1");
  });

  it("an invalidation that SQL heard of ends what memory kept before, and the other way round", async () => {
    const { redis, sql, one, database } = await setup();
    await cut(one, redis);
    await one.set("in SQL", "v", ["t"]);
    await cut(one, sql);
    await one.set("in memory", "v", ["u"]);
    await one.invalidate(["t"]);
    sql.restore();
    await until(() => database.ping().then(() => true), { what: "SQL to answer" });
    expect(await one.value("in SQL")).toBeUndefined();
    expect(await one.value("in memory")).toBe("v");
    await one.invalidate(["u"]);
    expect(await one.value("in memory")).toBeUndefined();
    await redisBack(one, redis);
    expect(await one.value("in SQL")).toBeUndefined();
    expect(await one.value("in memory")).toBeUndefined();
  });
});

describe("the memory of last resort", () => {
  it("is bounded by bytes, drops what other layers have first, and says once that a change was lost", async () => {
    const clock = movedClock();
    const versions = createVersions(clock);
    const lines: string[] = [];
    const log = createLog({ level: "info", destination: { write: (line) => lines.push(line) } });
    const memory = createMemoryStore({ clock, newStamp: () => versions.next(), maxBytes: 50_000, log });
    const draft = (): Draft => ({
      version: versions.next(),
      deleted: false,
      value: { data: Buffer.alloc(10_000), contentType: "" },
      createdAt: clock.now(),
      expiresAt: undefined,
      staleUntil: undefined,
      tags: [],
    });
    const order = (key: string) => ({ key, draft: draft(), guard: { kind: "none" }, announce: "no" }) as const;
    await memory.write("ns", [order("healed 1"), order("healed 2")]);
    await memory.keep("ns", [order("a"), order("b"), order("c"), order("d")]);
    expect(memory.lost).toBe(0);
    expect((await memory.read("ns", ["healed 1", "healed 2"])).map(({ record }) => record)).toEqual([
      undefined,
      undefined,
    ]);
    expect(await memory.unhealedCount()).toBe(4);
    await memory.keep("ns", [order("e"), order("f")]);
    expect(memory.lost).toBe(2);
    expect(await memory.unhealedCount()).toBe(4);
    expect(lines).toHaveLength(1);
  });
});
