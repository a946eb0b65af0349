import { execFile } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import pg from "pg";
import { describe, expect, inject, it } from "vitest";
import { freshDatabase, freshRedis } from "./fresh.ts";
import { startPostgres } from "./postgres-server.ts";
import { startRedisCluster } from "./redis-cluster.ts";
import { startRedisSentinel } from "./redis-sentinel.ts";
import { startRedis } from "./redis-server.ts";
import { startTcpProxy } from "./tcp-proxy.ts";
import { until } from "./until.ts";

const run = promisify(execFile);

// Its failed commands report what went wrong; ioredis would also log every failed attempt to connect.
function quiet(redis: Redis): Redis {
  return redis.on("error", () => undefined);
}

async function ask<T>(url: string, question: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = quiet(new Redis(url, { lazyConnect: true, retryStrategy: () => null }));
  try {
    await redis.connect();
    return await question(redis);
  } finally {
    redis.disconnect();
  }
}

async function select<T>(url: string, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: url });
  // A killed server breaks the connection under test; the query reports it.
  client.on("error", () => undefined);
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

describe("the shared servers", () => {
  it("hands out Redis databases that do not see each other's keys", async () => {
    const [one, other] = [await freshRedis(), await freshRedis()];
    await ask(one, (redis) => redis.set("key", "value"));
    expect(await ask(other, (redis) => redis.get("key"))).toBeNull();
    expect(await ask(one, (redis) => redis.get("key"))).toBe("value");
  });

  it("hands out empty Postgres databases", async () => {
    const [one, other] = [await freshDatabase(), await freshDatabase()];
    await select(one, "CREATE TABLE t (x int)");
    expect(await select(other, "SELECT 1 FROM pg_tables WHERE tablename = 't'")).toEqual([]);
    expect(await select(inject("postgresUrl"), "SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });
});

describe("a Redis of one's own", () => {
  it("comes back on the same port with what it persisted after a kill", async () => {
    await using server = await startRedis({ args: ["--appendonly", "yes", "--appendfsync", "always"] });
    await ask(server.url, (redis) => redis.set("key", "value"));
    const firstPid = server.pid;
    await server.kill();
    await expect(ask(server.url, (redis) => redis.ping())).rejects.toThrow();
    await server.restart();
    expect(server.pid).not.toBe(firstPid);
    expect(await ask(server.url, (redis) => redis.get("key"))).toBe("value");
  });

  it("answers nothing while frozen, and everything once thawed", async () => {
    await using server = await startRedis();
    const redis = new Redis(server.url);
    await redis.ping();
    server.pause();
    let answered = false;
    const answer = redis.ping().then(() => {
      answered = true;
    });
    await until(() => processState(server.pid).then((state) => state === "T"), { what: "Redis to be stopped" });
    expect(answered).toBe(false);
    server.resume();
    await answer;
    redis.disconnect();
  });

  it("can be stopped while frozen", async () => {
    const server = await startRedis();
    server.pause();
    await server.stop();
    await expect(processState(server.pid)).rejects.toThrow();
  });

  it("says why it did not start", async () => {
    await expect(startRedis({ args: ["--no-such-setting", "1"] })).rejects.toThrow("no-such-setting");
  });
});

describe("a Postgres of one's own", () => {
  it("keeps what was committed when it is killed and restarted", async () => {
    await using server = await startPostgres();
    const url = await server.createDatabase();
    await select(url, "CREATE TABLE t AS SELECT 7 AS x");
    await server.kill();
    await expect(select(url, "SELECT 1")).rejects.toThrow();
    await server.restart();
    expect(await select(url, "SELECT x FROM t")).toEqual([{ x: 7 }]);
  });

  it("freezes connections that are already open, too", async () => {
    await using server = await startPostgres();
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    const backend = (await client.query("SELECT pg_backend_pid() AS pid")).rows[0].pid;
    server.pause();
    await until(async () => (await processState(backend)) === "T", { what: "the backend to be stopped" });
    const answer = client.query("SELECT 1 AS one");
    server.resume();
    expect((await answer).rows).toEqual([{ one: 1 }]);
    await client.end();
  });
});

describe("a Redis Cluster", () => {
  it("serves every slot", async () => {
    await using cluster = await startRedisCluster();
    const [url = ""] = cluster.urls;
    const info = await ask(url, (redis) => redis.call("CLUSTER", "INFO"));
    expect(info).toContain("cluster_slots_ok:16384");
    expect(info).toContain("cluster_size:3");
  });
});

describe("Redis Sentinel", () => {
  it("makes the replica the primary when the primary is killed", async () => {
    await using setup = await startRedisSentinel();
    await setup.primary.kill();
    const redis = quiet(new Redis({ sentinels: [...setup.sentinels], name: setup.name }));
    const role = () => ask(setup.replica.url, async (replica) => JSON.stringify(await replica.call("ROLE")));
    await until(async () => (await role()).includes("master"), {
      what: "the replica to be promoted",
      timeoutMs: 60_000,
    });
    await until(async () => (await redis.set("key", "value")) === "OK", { what: "a write through Sentinel" });
    redis.disconnect();
  });
});

describe("the TCP proxy", () => {
  it("cuts, restores, freezes and thaws", async () => {
    await using server = await startRedis();
    await using proxy = await startTcpProxy(server.port);
    const url = `redis://127.0.0.1:${proxy.port}`;
    expect(await ask(url, (redis) => redis.ping())).toBe("PONG");

    const open = connect(proxy.port, "127.0.0.1");
    await once(open, "connect");
    await until(() => proxy.connections() === 1, { what: "the proxy to have the connection" });
    const closed = new Promise<void>((resolve) => {
      open.on("error", () => undefined).on("close", () => resolve());
    });
    proxy.cut();
    await closed;
    await expect(ask(url, (redis) => redis.ping())).rejects.toThrow();
    proxy.restore();
    expect(await ask(url, (redis) => redis.ping())).toBe("PONG");

    const redis = new Redis(url);
    await redis.ping();
    proxy.freeze();
    let answered = false;
    const answer = redis.ping().then((pong) => {
      answered = true;
      return pong;
    });
    // The server answers others meanwhile: time passes, and still nothing comes through.
    for (let turn = 0; turn < 20; turn++) await ask(server.url, (direct) => direct.ping());
    expect(answered).toBe(false);
    proxy.thaw();
    expect(await answer).toBe("PONG");
    redis.disconnect();
  });
});

describe("until", () => {
  it("names what it waited for and what it saw last when it gives up", async () => {
    const never = until(() => 0, { what: "the moon", timeoutMs: 1 });
    await expect(never).rejects.toThrow("Gave up waiting for the moon after 1 ms; last answer: 0");
    const failing = until(() => Promise.reject(new Error("cloudy")), { what: "the moon", timeoutMs: 1 });
    await expect(failing).rejects.toThrow("cloudy");
  });
});

async function processState(pid: number): Promise<string> {
  const { stdout } = await run("ps", ["-o", "stat=", "-p", String(pid)]);
  return stdout.trim().charAt(0);
}
