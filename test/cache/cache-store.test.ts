import { join } from "node:path";
import { Redis as RawRedis } from "ioredis";
import pg from "pg";
import { expect, it } from "vitest";
import { createMemoryStore } from "../../src/cache/memory.ts";
import { tombstone } from "../../src/cache/record.ts";
import { createRedisStore } from "../../src/cache/redis.ts";
import { createSqlStore } from "../../src/cache/sql.ts";
import type { Write } from "../../src/cache/store.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { createRedis, parseRedisUrl } from "../../src/infra/redis.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { type CacheStoreFactory, describeCacheStore } from "../conformance/cache-store.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { movedClock } from "../support/moved-clock.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { announcer, openRedis } from "./instance.ts";

/** Several clients, as several instances have them, and one that listens. */
async function overRedis(
  url: string,
  listenUrl: string,
  { clock, newStamp, announcer }: Parameters<CacheStoreFactory>[0],
  channel: string,
  also: () => Promise<unknown> = async () => {},
): ReturnType<CacheStoreFactory> {
  const parsed = parseRedisUrl(url);
  if (typeof parsed === "string") throw new Error(parsed);
  const clients = [0, 1].map(() =>
    createRedis({ mode: "single", nodes: [], commandTimeoutMs: 30_000, connectTimeoutMs: 5_000, ...parsed }),
  );
  const stores = clients.map((redis) => createRedisStore({ redis, announcer, clock, newStamp }));
  const listener = new RawRedis(listenUrl);
  const heard: string[] = [];
  listener.on("message", (_, message) => heard.push(message));
  await listener.subscribe(channel);
  let opened = 0;
  return {
    heard,
    open() {
      const store = stores[opened++ % stores.length];
      if (store === undefined) throw new Error("no store");
      return store;
    },
    async spoil(namespace, key, kind) {
      const name = `holdfast:cache:{${namespace}/${key}}`;
      const [redis] = clients;
      await redis?.command("del", name);
      if (kind === "other type") await redis?.command("hset", name, "a", "b");
      else if (kind === "text") await redis?.command("set", name, "someone else's\nvalue");
      else await redis?.command("set", name, "h1 99999999999999999999 t 1 - - %ZZ 1 -\nx");
    },
    async close() {
      listener.disconnect();
      await Promise.all(clients.map((redis) => redis.close()));
      await also();
    },
  };
}

describeCacheStore(
  "Redis as a store of the cache",
  async (parts, channel) => {
    const url = await freshRedis();
    return overRedis(url, url, parts, channel);
  },
  { ownClock: true, unordered: true },
);

describeCacheStore(
  "a Redis Cluster as a store of the cache",
  async (parts, channel) => {
    const cluster = await startRedisCluster();
    const hosts = cluster.nodes.map((node) => `127.0.0.1:${node.port}`).join(",");
    return overRedis(`redis-cluster://${hosts}`, cluster.urls[0] ?? "", parts, channel, () => cluster.stop());
  },
  { ownClock: true, unordered: true, manyVoices: true, fences: "key" },
);

describeCacheStore("SQLite as a store of the cache", async ({ clock, newStamp }) => {
  const directory = scratchDirectory("cache");
  const database = openSqlite({ path: join(directory.path, "cache.db"), busyTimeoutMs: 60_000 });
  await migrate(database, migrations);
  const store = createSqlStore({ database, announcer: undefined, clock, newStamp });
  return {
    heard: undefined,
    open: () => store,
    async close() {
      await database.close();
      directory.remove();
    },
  };
});

describeCacheStore("Postgres as a store of the cache", async ({ clock, newStamp, announcer }, channel) => {
  const url = await freshDatabase();
  const databases = [0, 1].map(() =>
    openPostgres({ url, poolSize: 5, statementTimeoutMs: 60_000, connectTimeoutMs: 60_000 }),
  );
  for (const database of databases) await migrate(database, migrations);
  const stores = databases.map((database) => createSqlStore({ database, announcer, clock, newStamp }));
  const listener = new pg.Client(url);
  const heard: string[] = [];
  listener.on("notification", ({ payload = "" }) => heard.push(payload));
  await listener.connect();
  await listener.query(`LISTEN "${channel}"`);
  let opened = 0;
  return {
    heard,
    open() {
      const store = stores[opened++ % stores.length];
      if (store === undefined) throw new Error("no store");
      return store;
    },
    async close() {
      await listener.end();
      await Promise.all(databases.map((database) => database.close()));
    },
  };
});

it("a mark in Redis goes only forward, whoever brings an older one, and a copy from before it is refused", async () => {
  const redis = openRedis(await freshRedis(), 30_000);
  const store = createRedisStore({ redis, announcer, clock: movedClock(), newStamp: () => 1_000 });
  const copy = (version: number, stamps: readonly number[]): Write => ({
    key: "k",
    draft: { ...tombstone(version, Date.now()), deleted: false, tags: ["t"] },
    stamps,
    guard: { kind: "newer" },
    announce: "no",
  });
  const marks = (own: number, tag: number) => [
    { tag: "", stamp: own },
    { tag: "t", stamp: tag },
  ];
  await store.raise("ns", marks(10, 21));
  await store.raise("ns", marks(10, 11));
  expect(await store.write("ns", [copy(1, [10, 11])])).toMatchObject([{ stored: false, why: "overtaken" }]);
  expect(await store.write("ns", [copy(2, [10, 21])])).toMatchObject([{ stored: true }]);
  expect(await store.read("ns", ["k"])).toMatchObject([{ valid: true }]);
  await store.raise("ns", marks(31, 21));
  expect(await store.read("ns", ["k"])).toMatchObject([{ valid: false }]);
  await redis.close();
});

describeCacheStore(
  "memory as a store of the cache",
  async ({ clock, newStamp }) => {
    const log = createLog({ level: "silent" });
    const store = createMemoryStore({ clock, newStamp, maxBytes: 100_000_000, log });
    return { heard: undefined, open: () => store, close: async () => {} };
  },
  { fences: "none" },
);
