import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import type { Database, SqlRow, SqlValue } from "../../src/infra/database.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { type Instance, openRedis, startInstance } from "./instance.ts";

/** Instances with a durable namespace over one database, and a Redis that can be cut off. */
async function setup(kind: "sqlite" | "postgres" = "sqlite") {
  const parts = new AsyncDisposableStack();
  onTestFinished(() => parts.disposeAsync());
  const through = async (target: string) => {
    const url = new URL(target);
    const proxy = parts.use(await startTcpProxy(Number(url.port)));
    url.port = String(proxy.port);
    return { proxy, url: url.href };
  };
  const redisUrl = await freshRedis();
  const redis = await through(redisUrl);
  const directory = parts.adopt(scratchDirectory("durable"), (it) => it.remove());
  const sql = kind === "postgres" ? await through(await freshDatabase()) : undefined;
  const database = parts.adopt(
    sql === undefined
      ? openSqlite({ path: join(directory.path, "cache.db") })
      : openPostgres({ url: sql.url, poolSize: 4, statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 }),
    (it) => it.close(),
  );
  await migrate(database, migrations);
  const raw = parts.adopt(openRedis(redisUrl, 30_000), (it) => it.close());
  return {
    redis: redis.proxy,
    sql: sql?.proxy,
    database,
    raw,
    start: async (over: Database = database, l1TtlMs = 0): Promise<Instance> =>
      parts.use(await startInstance({ redisUrl: redis.url, database: over, policy: { durable: true, l1TtlMs } })),
    /** Until the instance has tried to make a hot copy: the first in this Redis since it was emptied. */
    async tried(instance: Instance): Promise<void> {
      // The mark is made on the way, and what comes after on the same connection comes after the copy.
      await until(async () => (await raw.command("exists", "holdfast:mark:{test}")) === 1, { what: "the hot copy" });
      for (let i = 0; i < 3; i++) await instance.redis.ping();
    },
    /** The hot copy as it stands in Redis; "" for a tombstone. */
    async hot(key: string): Promise<string | undefined> {
      const [bytes] = await raw.getBuffers([`holdfast:cache:{test/${key}}`]);
      return bytes == null ? undefined : bytes.toString("utf8").split("\n")[1];
    },
  };
}

const isEntryWrite = (sql: string) => /^\s*INSERT INTO cache_entry/.test(sql);
const never = new Promise<never>(() => {});

/** The real database, for an instance whose process stops for good before or after the commit of an entry. */
function stopping(database: Database, when: "before" | "after", reached: () => void, gate?: Promise<void>): Database {
  return {
    ...database,
    async write<Row extends SqlRow>(sql: string, params?: readonly SqlValue[]) {
      if (!isEntryWrite(sql)) return database.write<Row>(sql, params);
      await gate;
      if (when === "after") await database.write(sql, params);
      reached();
      return never;
    },
  };
}

/** The real database, for an instance whose reads of a table are answered at once and heard of only when the gate opens. */
function slowToHear(database: Database, table: string, reached: () => void, gate: Promise<void>): Database {
  return {
    ...database,
    async query<Row extends SqlRow>(sql: string, params?: readonly SqlValue[]) {
      const rows = await database.query<Row>(sql, params);
      if (!sql.includes(`FROM ${table} WHERE namespace = $1 AND`) || !sql.includes(" IN (")) return rows;
      reached();
      await gate;
      return rows;
    },
  };
}

async function openedBy(instance: Instance): Promise<void> {
  await until(
    async () => {
      await instance.get("anything");
      return instance.breaker.state === "open";
    },
    { what: "the breaker to open" },
  );
}

describe("a durable namespace", () => {
  it("is answered from hot copies after a write, a deletion and an invalidation, too", async () => {
    const { start, hot } = await setup();
    const one = await start();
    await one.set("k", "1", ["t"]);
    expect(await hot("k")).toBe("1");
    expect((await one.get("k")).layer).toBe("redis");
    await one.remove("k");
    expect(await one.value("k")).toBeUndefined();
    expect(await hot("k")).toBe("");
    for (const tags of [["t"], []]) {
      await one.set("k", "2", ["t"]);
      await one.invalidate(tags);
      expect(await one.value("k")).toBeUndefined();
      await until(async () => (await one.layers.unhealed()) === 0, { what: "the mark to be healed" });
      await one.set("k", "3", ["t"]);
      expect(await one.value("k")).toBe("3");
      expect((await one.get("k")).layer).toBe("redis");
    }
  });

  it("makes a hot copy of what is read, when there is none", async () => {
    const { start, hot, raw } = await setup();
    const one = await start();
    await one.set("k", "1", ["t"]);
    await raw.command("flushdb");
    expect(await one.value("k")).toBe("1");
    await until(async () => (await hot("k")) === "1", { what: "the hot copy" });
    expect((await one.get("k")).layer).toBe("redis");
  });

  it("shows the value before, when a writer stopped between its tombstone and its commit", async () => {
    const { database, start, hot } = await setup();
    const one = await start();
    await one.set("k", "old");
    const { promise: reached, resolve } = Promise.withResolvers<void>();
    const doomed = await start(stopping(database, "before", resolve));
    void doomed.set("k", "never");
    await reached;
    expect(await hot("k")).toBe("");
    expect(await one.value("k")).toBe("old");
    // Not as a hot copy: the stopped writer may only be slow.
    expect(await hot("k")).toBe("");
    await one.set("k", "next");
    expect(await one.value("k")).toBe("next");
  });

  it("shows the new value, when a writer stopped between its commit and its refresh", async () => {
    const { database, start, hot } = await setup();
    const one = await start();
    await one.set("k", "old");
    const { promise: reached, resolve } = Promise.withResolvers<void>();
    const doomed = await start(stopping(database, "after", resolve));
    void doomed.set("k", "new");
    await reached;
    expect(await hot("k")).toBe("");
    expect(await one.value("k")).toBe("new");
    await until(async () => (await hot("k")) === "new", { what: "the hot copy" });
  });

  it("is not given an old copy by a reader that was slow", async () => {
    const { database, start, hot, raw } = await setup();
    const one = await start();
    await one.set("k", "old");
    await raw.command("flushdb");
    const { promise: reached, resolve: hasRead } = Promise.withResolvers<void>();
    const { promise: gate, resolve: letGo } = Promise.withResolvers<void>();
    const slow = await start(slowToHear(database, "cache_entry", hasRead, gate));
    const reading = slow.value("k");
    await reached;
    await one.set("k", "new");
    letGo();
    await reading;
    // Each waits for its turn behind the refresh of the slow reader, which went the same way before them.
    for (const instance of [slow, one]) expect(await instance.value("k")).toBe("new");
    expect(await hot("k")).toBe("new");
  });

  it("is not given an old copy by a slow reader even when the writer stopped before its refresh", async () => {
    const { database, start, raw, tried } = await setup();
    const one = await start();
    await one.set("k", "old");
    await raw.command("flushdb");
    const [read, gate, committed] = [0, 1, 2].map(() => Promise.withResolvers<void>());
    if (read === undefined || gate === undefined || committed === undefined) throw new Error("too few");
    const slow = await start(slowToHear(database, "cache_entry", read.resolve, gate.promise));
    const reading = slow.value("k");
    await read.promise;
    const doomed = await start(stopping(database, "after", committed.resolve));
    void doomed.set("k", "new");
    await committed.promise;
    gate.resolve();
    await reading;
    await tried(slow);
    for (const instance of [slow, one]) expect(await instance.value("k")).toBe("new");
  });

  it("is not kept in memory while a writer is between its tombstone and its commit", async () => {
    const { database, start, hot } = await setup();
    const one = await start(database, 600_000);
    const reader = await start(database, 600_000);
    await one.set("k", "old");
    const [gate, committed] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const doomed = await start(stopping(database, "after", committed.resolve, gate.promise));
    void doomed.set("k", "new");
    await until(async () => (await hot("k")) === "", { what: "the tombstone" });
    expect(await reader.value("k")).toBe("old");
    gate.resolve();
    await committed.promise;
    expect(await reader.value("k")).toBe("new");
  });

  it("is not given a copy that was invalidated while its reader was slow, though Redis had lost the mark", async () => {
    const { database, start, raw, tried } = await setup("postgres");
    const one = await start();
    await one.set("k", "old", ["t"]);
    await raw.command("flushdb");
    const { promise: reached, resolve: hasRead } = Promise.withResolvers<void>();
    const { promise: gate, resolve: letGo } = Promise.withResolvers<void>();
    const slow = await start(slowToHear(database, "cache_mark", hasRead, gate));
    const reading = slow.value("k");
    await reached;
    await one.invalidate(["t"]);
    letGo();
    expect(await reading).toBe("old");
    await tried(slow);
    for (const instance of [slow, one]) expect(await instance.value("k")).toBeUndefined();
  });

  it("remembers an invalidation whose instance stopped before Redis heard of it", async () => {
    const { database, start } = await setup();
    const one = await start();
    await one.set("k", "old", ["t"]);
    const { promise: reached, resolve } = Promise.withResolvers<void>();
    const doomed = await start({
      ...database,
      async writeAll(statements) {
        const rows = await database.writeAll(statements);
        if (statements.some(({ sql }) => sql.includes("unhealed = 1"))) {
          resolve();
          return never;
        }
        return rows;
      },
    });
    void doomed.invalidate(["t"]);
    await reached;
    // As after a restart: SQLite has one process at a time.
    const next = await start();
    expect(await next.value("k")).toBeUndefined();
  });

  it("is served by SQL while Redis is away, and its hot copies are the new ones afterwards", async () => {
    const { redis, start, hot } = await setup();
    const one = await start();
    for (const key of ["changed", "deleted", "invalid"]) await one.set(key, "old", key === "invalid" ? ["t"] : []);
    redis.cut();
    await openedBy(one);
    expect(await one.set("changed", "new")).toBe(true);
    await one.remove("deleted");
    await one.invalidate(["t"]);
    const keys = ["changed", "deleted", "invalid"];
    expect(await Promise.all(keys.map((key) => one.value(key)))).toEqual(["new", undefined, undefined]);
    redis.restore();
    await until(
      async () => {
        await one.breaker.forceTrial();
        return one.breaker.state === "closed";
      },
      { what: "the breaker to close" },
    );
    expect(await Promise.all(keys.map((key) => one.value(key)))).toEqual(["new", undefined, undefined]);
    expect(await hot("changed")).toBe("new");
    expect((await one.get("changed")).degraded).toBe(false);
  });

  it("is read from hot copies while SQL is away; what needs the truth fails and says so", async () => {
    const { sql, start } = await setup("postgres");
    const one = await start();
    await one.set("k", "1");
    sql?.cut();
    expect(await one.value("k")).toBe("1");
    await expect(one.set("k", "2")).rejects.toThrow(UnavailableError);
    await expect(one.invalidate([])).rejects.toThrow(UnavailableError);
    await expect(one.get("unknown")).rejects.toThrow(UnavailableError);
    expect(one.breaker.state).toBe("closed");
    sql?.restore();
    await until(async () => (await one.value("k")) === "1", { what: "SQL to answer again" });
    await one.set("k", "2");
    expect(await one.value("k")).toBe("2");
  });
});
