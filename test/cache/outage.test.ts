import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import type { Database } from "../../src/infra/database.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { startRedis } from "../support/redis-server.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { type Instance, type InstanceOptions, openRedis, startInstance } from "./instance.ts";

/** A Redis that keeps what it acknowledged when it is killed, with a network to it that can be cut, and a SQLite file. */
async function setup() {
  const parts = new AsyncDisposableStack();
  onTestFinished(() => parts.disposeAsync());
  const server = parts.use(await startRedis({ args: ["--appendonly", "yes", "--appendfsync", "always"] }));
  const proxy = parts.use(await startTcpProxy(server.port));
  const directory = parts.adopt(scratchDirectory("outage"), (it) => it.remove());
  const database = await openDatabase(join(directory.path, "cache.db"));
  parts.defer(() => database.close());
  const instances: Instance[] = [];
  parts.defer(async () => {
    for (const one of instances) await one[Symbol.asyncDispose]();
  });
  // Past the proxy and past every rule: what Redis itself holds.
  const raw = parts.adopt(openRedis(server.url, 30_000), (it) => it.close());
  return {
    server,
    proxy,
    database,
    async start(options: Partial<InstanceOptions> = {}): Promise<Instance> {
      const redisUrl = `redis://127.0.0.1:${proxy.port}`;
      const one = await startInstance({ redisUrl, database, ...options });
      instances.push(one);
      return one;
    },
    /** The text as it stands in Redis; "" for a tombstone. */
    async inRedis(key: string): Promise<string | undefined> {
      const [bytes] = await raw.getBuffers([`holdfast:cache:{test/${key}}`]);
      return bytes == null ? undefined : bytes.toString("utf8").split("\n")[1];
    },
  };
}

async function openDatabase(path: string): Promise<Database> {
  const database = openSqlite({ path });
  await migrate(database, migrations);
  return database;
}

async function closed(instance: Instance): Promise<void> {
  await until(
    async () => {
      await instance.breaker.forceTrial();
      return instance.breaker.state === "closed";
    },
    { what: "the breaker to close" },
  );
}

async function healed(instance: Instance): Promise<void> {
  await until(async () => (await instance.layers.unhealed()) === 0, { what: "everything to be healed" });
}

/** Until it opens: so that nothing below is answered by waiting. */
async function opened(instance: Instance): Promise<void> {
  await until(
    async () => {
      await instance.get("anything");
      return instance.breaker.state === "open";
    },
    { what: "the breaker to open" },
  );
}

describe.each(["killed", "frozen"] as const)("while Redis is %s", (how) => {
  const fail = (server: Awaited<ReturnType<typeof startRedis>>) => (how === "killed" ? server.kill() : server.pause());
  const recover = (server: Awaited<ReturnType<typeof startRedis>>) =>
    how === "killed" ? server.restart() : server.resume();

  it("calls are answered, marked degraded, and no old value comes back", async () => {
    const { server, start, inRedis } = await setup();
    const one = await start();
    for (const key of ["changed", "deleted", "untouched"]) expect(await one.set(key, "old")).toBe(false);
    expect(await one.add("counter", 5n)).toBe(5n);
    await fail(server);
    await opened(one);
    expect(await one.set("changed", "new")).toBe(true);
    expect(await one.set("made", "new")).toBe(true);
    expect(await one.remove("deleted")).toBe(true);
    expect(await one.value("changed")).toBe("new");
    expect((await one.get("changed")).degraded).toBe(true);
    expect(await one.value("deleted")).toBeUndefined();
    await recover(server);
    await closed(one);
    const values = await Promise.all(["changed", "made", "deleted", "untouched"].map((key) => one.value(key)));
    expect(values).toEqual(["new", "new", undefined, "old"]);
    expect((await one.get("changed")).degraded).toBe(false);
    expect(await inRedis("changed")).toBe("new");
    expect(await inRedis("deleted")).toBe("");
    expect(await one.layers.unhealed()).toBe(0);
  });

  it("an invalidation ends what was there before it, and not what came after", async () => {
    const { server, start } = await setup();
    const one = await start();
    for (const key of ["before", "again", "other"]) await one.set(key, "old", key === "other" ? ["u"] : ["t"]);
    await fail(server);
    await opened(one);
    await one.set("during", "old", ["t"]);
    expect(await one.invalidate(["t"])).toBe(true);
    await one.set("again", "new", ["t"]);
    await one.set("after", "new", ["t"]);
    await one.invalidate(["u"]);
    const keys = ["before", "during", "again", "after"];
    expect(await Promise.all(keys.map((key) => one.value(key)))).toEqual([undefined, undefined, "new", "new"]);
    await recover(server);
    await closed(one);
    expect(await Promise.all(keys.map((key) => one.value(key)))).toEqual([undefined, undefined, "new", "new"]);
    expect(await one.value("other")).toBeUndefined();
  });

  it("an invalidation of the namespace is not forgotten", async () => {
    const { server, start } = await setup();
    const one = await start();
    await one.set("before", "old");
    await fail(server);
    await opened(one);
    await one.invalidate([]);
    await one.set("after", "new");
    await recover(server);
    await closed(one);
    expect(await one.value("before")).toBeUndefined();
    expect(await one.value("after")).toBe("new");
  });
});

describe("what changed while Redis was away", () => {
  it("survives a restart of the instance, also one without Redis", async () => {
    const { proxy, start, inRedis } = await setup();
    const first = await start();
    await first.set("k", "old");
    await first.set("tagged", "old", ["t"]);
    proxy.cut();
    await opened(first);
    await first.set("k", "new");
    await first.invalidate(["t"]);
    await first[Symbol.asyncDispose]();

    const second = await start();
    await opened(second);
    expect(await second.value("k")).toBe("new");
    proxy.restore();
    await closed(second);
    expect(await second.value("k")).toBe("new");
    expect(await second.value("tagged")).toBeUndefined();
    expect(await inRedis("k")).toBe("new");
  });

  it("is known after a restart with Redis there, before anything is healed", async () => {
    const { proxy, start } = await setup();
    const first = await start();
    await first.set("k", "old");
    await first.set("tagged", "old", ["t"]);
    proxy.cut();
    await opened(first);
    await first.set("k", "new");
    await first.invalidate(["t"]);
    await first[Symbol.asyncDispose]();
    proxy.restore();
    const second = await start();
    expect(await second.value("k")).toBe("new");
    expect(await second.value("tagged")).toBeUndefined();
  });

  it("is healed by itself after a short interruption that does not open the breaker", async () => {
    const { proxy, start, inRedis } = await setup();
    const one = await start({ failureThreshold: 1_000_000 });
    await one.set("k", "old");
    proxy.cut();
    expect(await one.set("k", "new")).toBe(true);
    proxy.restore();
    expect(await one.value("k")).toBe("new");
    await healed(one);
    expect(await inRedis("k")).toBe("new");
  });

  it("is what conditional writes build on, healed or not", async () => {
    const { proxy, start, inRedis } = await setup();
    const one = await start({ failureThreshold: 1_000_000 });
    expect(await one.add("counter", 5n)).toBe(5n);
    const before = (await one.get("counter")).seen;
    proxy.cut();
    await one.set("counter", "40");
    proxy.restore();
    await until(() => one.redis.connect() ?? one.redis.connected, { what: "Redis to be connected" });
    expect(await one.add("counter", 2n)).toBe(42n);
    const order = { key: "counter", expected: before, expiry: "never", tags: [], requestId: "" } as const;
    const stale = await one.cache.compareAndSet(one.namespace, { ...order, value: { data: "0", contentType: "" } });
    expect(stale.swapped).toBe(false);
    await healed(one);
    expect(await one.value("counter")).toBe("42");
    expect(await inRedis("counter")).toBe("42");
  });

  it("is not shown by the next outage when it was changed in Redis before it was healed", async () => {
    const { proxy, start } = await setup();
    const one = await start({ failureThreshold: 1_000_000 });
    await one.set("changed", "old");
    await one.set("deleted", "old");
    proxy.cut();
    expect(await one.set("changed", "kept")).toBe(true);
    expect(await one.set("deleted", "kept")).toBe(true);
    proxy.restore();
    await until(() => one.redis.connect() ?? one.redis.connected, { what: "Redis to be connected" });
    expect(await one.set("changed", "newer")).toBe(false);
    await one.remove("deleted");
    proxy.cut();
    expect(await one.value("changed")).not.toBe("kept");
    expect(await one.value("deleted")).toBeUndefined();
    proxy.restore();
    await until(async () => (await one.value("changed")) === "newer", { what: "Redis to answer" });
    expect(await one.value("deleted")).toBeUndefined();
  });

  it("does not come back when it was invalidated between the return of Redis and the healing", async () => {
    const { proxy, start } = await setup();
    const one = await start({ failureThreshold: 1_000_000 });
    await one.set("other", "x", ["t"]);
    proxy.cut();
    await one.set("k", "kept", ["t"]);
    proxy.restore();
    await until(() => one.redis.connect() ?? one.redis.connected, { what: "Redis to be connected" });
    await one.invalidate(["t"]);
    expect(await one.value("k")).toBeUndefined();
    await healed(one);
    expect(await one.value("k")).toBeUndefined();
  });

  it("does not come back when another instance invalidated it meanwhile", async () => {
    const { server, proxy, start, database } = await setup();
    const one = await start();
    const other = await start({ redisUrl: server.url });
    await one.set("k", "old", ["t"]);
    proxy.cut();
    await opened(one);
    await one.set("k", "kept", ["t"]);
    await one.set("later", "kept", []);
    await other.invalidate(["t"]);
    // The other one may have healed it by now, or the first does: neither may bring it back.
    proxy.restore();
    await closed(one);
    expect(await one.value("k")).toBeUndefined();
    expect(await other.value("k")).toBeUndefined();
    expect(await other.value("later")).toBe("kept");
    await database.ping();
  });
});

it("a lease given before the outage does not store what was invalidated during it", async () => {
  const { proxy, start } = await setup();
  const one = await start();
  const wish = { ttlMs: 60_000, waitMs: 0, signal: AbortSignal.timeout(60_000) };
  const order = { expiry: "never", ifAbsent: false, tags: ["t"] } as const;
  const value = { data: "computed before", contentType: "" };
  const overtaken = await one.cache.reads.getOrLease(one.namespace, "overtaken", false, wish);
  proxy.cut();
  await opened(one);
  await one.invalidate(["t"]);
  const [refused] = await one.cache.set(one.namespace, [
    { ...order, key: "overtaken", value, leaseToken: overtaken.lease?.token ?? "" },
  ]);
  expect(refused?.outcome).toBe("overtaken");
  const fine = await one.cache.reads.getOrLease(one.namespace, "fine", false, wish);
  const [stored] = await one.cache.set(one.namespace, [
    { ...order, key: "fine", value, leaseToken: fine.lease?.token ?? "" },
  ]);
  expect(stored?.outcome).toBe("stored");
});

it("prefers its own newer copy to what another instance kept in SQL before", async () => {
  const { start, proxy } = await setup();
  const here = await start({ policy: { l1TtlMs: 60_000 } });
  const cutOff = await start({ redisUrl: "redis://127.0.0.1:1" });
  expect(await cutOff.set("k", "kept by the other")).toBe(true);
  expect(await here.set("k", "newest")).toBe(false);
  proxy.cut();
  const found = await here.cache.reads.get(here.namespace, "k", true);
  expect(found).toMatchObject({ outcome: "hit", layer: "l1", degraded: true });
  expect(found.record?.value.data).toBe("newest");
});
