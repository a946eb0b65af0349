import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { createRedisBacklog } from "../../src/audit/queue/redis-backlog.ts";
import { GROUP } from "../../src/audit/queue/redis-queue-keys.ts";
import type { Sealed } from "../../src/audit/record/record.ts";
import { open } from "../infra/redis-clients.ts";
import { startChild } from "../support/child.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import {
  archived,
  type Client,
  conflicts,
  drained,
  fresh,
  ids,
  insist,
  LONG_MS,
  onServer,
  openDatabase,
  world,
} from "./archiver-parts.ts";
import {
  fieldsOf,
  inStream,
  LEASE,
  PRODUCERS,
  QUARANTINE,
  recordOf,
  recordsOf,
  STREAM,
  seedsFor,
} from "./queue-parts.ts";

describe.each(["sqlite", "postgres"] as const)("an archiver over %s", (kind) => {
  it("moves what is queued into the archive, in order, and leaves nothing behind in Redis", async () => {
    const it = await fresh(kind);
    const records = [
      ...recordsOf("a", 1, 300),
      ...recordsOf("b", 1, 20),
      recordOf("@r.x", 1),
      ...recordsOf("a", 301, 400),
    ];
    await it.queue.append({ records, seeds: seedsFor("a", "b"), settled: true });
    const archiver = it.archiver();
    await drained(it);
    expect(await archived(it)).toEqual(ids(records));
    await it.queue.append({ records: recordsOf("a", 401, 450) });
    await drained(it);
    expect(await archived(it)).toEqual(ids([...records, ...recordsOf("a", 401, 450)]));
    const keys = await it.redis.command("keys", "*");
    expect(keys).toEqual(expect.arrayContaining([LEASE, PRODUCERS, STREAM]));
    expect(keys).toHaveLength(3);
    const fields = await it.redis.command("hkeys", PRODUCERS);
    expect(Array.isArray(fields) && fields.toSorted()).toEqual(["/", "/era", "/foreign", "/records", "a", "b"]);
    expect(archiver.condition()).toEqual({
      leading: true,
      archived: 471,
      foreign: 0,
      quarantined: 0,
      lastError: undefined,
    });
    expect(await it.queue.condition()).toMatchObject({ unarchived: 0, oldestAcceptUs: undefined });
  });

  it("drains a hundred thousand records", async () => {
    const it = await fresh(kind);
    const archiver = it.archiver();
    const producers = ["a", "b", "c", "d"];
    for (let first = 1; first <= 25_000; first += 500) {
      const batches = producers.map((producer) => recordsOf(producer, first, first + 499));
      await Promise.all(batches.map((records) => it.queue.append({ records, seeds: seedsFor(...producers) })));
    }
    await drained(it);
    const [row] = await it.database.query<{ count: number }>("SELECT count(*) AS count FROM audit_record");
    expect(Number(row?.count)).toBe(100_000);
    for (const producer of producers) {
      const rows = await it.database.query<{ sequence: number }>(
        "SELECT sequence FROM audit_record WHERE producer = $1 ORDER BY leaf_index",
        [producer],
      );
      expect(rows.every(({ sequence }, at) => sequence === at + 1)).toBe(true);
    }
    expect(await conflicts(it)).toBe(0);
    await until(() => archiver.condition().archived === 100_000, { what: "the count of the archiver" });
  });
});

describe("entries that are not records", () => {
  it("are left in the stream, looked at once, and told of once", async () => {
    const it = await fresh();
    for (let at = 0; at < 3; at++) await it.redis.command("xadd", STREAM, "*", "event", `legacy ${at}`);
    await it.queue.append({ records: recordsOf("p", 1, 2), seeds: seedsFor("p") });
    await it.redis.command("xadd", STREAM, "*", ...fieldsOf(recordOf("p", 3)), "more", "x");
    const archiver = it.archiver();
    await drained(it);
    expect(await inStream(it.redis)).toEqual(["foreign", "foreign", "foreign", "p/3"]);
    await it.queue.append({ records: recordsOf("p", 3, 4) });
    await drained(it);
    expect(await archived(it)).toEqual(ids(recordsOf("p", 1, 4)));
    expect(archiver.condition()).toMatchObject({ foreign: 4, archived: 4, quarantined: 0 });
    expect(await it.queue.condition()).toMatchObject({ unarchived: 0, foreign: 4, oldestAcceptUs: undefined });
    expect(await it.queue.sequences("p")).toEqual([]);
    await archiver.close();
    const next = it.archiver("two");
    await until(() => next.condition().leading, { what: "the next one to lead" });
    await it.queue.append({ records: recordsOf("p", 5, 5) });
    await drained(it);
    expect(next.condition()).toMatchObject({ foreign: 0, archived: 1 });
    expect(it.lines.filter((line) => line.includes("holdfast import audit-stream"))).toHaveLength(1);
  });

  it("are counted again when their number was lost or is wrong", async () => {
    const it = await fresh();
    for (let at = 0; at < 3; at++) await it.redis.command("xadd", STREAM, "*", "event", `legacy ${at}`);
    it.archiver();
    const counted = async (foreign: number) => {
      const condition = await it.queue.condition();
      return condition.foreign === foreign && condition.unarchived === 0;
    };
    await until(() => counted(3), { what: "them to be counted" });
    await it.redis.command("del", PRODUCERS);
    await until(() => counted(3), { what: "them to be counted again" });
    const [entry] = (await it.redis.command("xrange", STREAM, "-", "+")) as [string][];
    await it.redis.command("xdel", STREAM, String(entry?.[0]));
    await until(() => counted(2), { what: "one less to be counted" });
    await it.queue.append({ records: recordsOf("p", 1, 2), seeds: seedsFor("p") });
    await drained(it);
    expect(await archived(it)).toEqual(["p/1", "p/2"]);
  });

  it("are put aside when they look like records and cannot be read, and the others go on", async () => {
    const it = await fresh();
    await it.queue.append({ records: [recordOf("p", 1)], seeds: seedsFor("p") });
    const add = (...fields: readonly (string | Buffer)[]) => it.redis.command("xadd", STREAM, "*", ...fields);
    const unlike = await add("producer", "p", "first", "2", "last", "3", "leaves", "no records");
    const nonsense = { ...recordOf("p", 5), leaf: Buffer.from("nonsense") };
    await add(...fieldsOf(recordOf("p", 4), nonsense, recordOf("p", 6)));
    // It says of itself that it is another.
    await add(...fieldsOf({ ...recordOf("p", 7), leaf: recordOf("p", 9).leaf }));
    await it.queue.append({ records: [recordOf("p", 8)] });
    const archiver = it.archiver();
    await until(() => archiver.condition().quarantined === 4, { what: "four to be put aside" });
    await drained(it);
    expect(await archived(it)).toEqual(["p/1", "p/4", "p/6", "p/8"]);
    const aside = await it.redis.command("xrange", QUARANTINE, "-", "+");
    expect(aside).toMatchObject([
      [expect.any(String), ["entry", unlike, "producer", "p", "first", "2", "last", "3", "leaves", "no records"]],
      [expect.any(String), expect.arrayContaining(["first", "4"])],
      [expect.any(String), expect.arrayContaining(["first", "7"])],
    ]);
    expect(await it.queue.condition()).toMatchObject({ unarchived: 0, quarantined: 3 });
    expect(it.lines.filter((line) => line.includes('"level":"error"') && line.includes("put aside"))).toHaveLength(3);
  });
});

describe("taking over", () => {
  it("happens at once when the leader is closed", async () => {
    const it = await fresh();
    const first = it.archiver("first", LONG_MS);
    await until(() => first.condition().leading, { what: "the first to lead" });
    // It looks for the lead about twice a second.
    const second = it.archiver("second", 2_500);
    await it.queue.append({ records: recordsOf("p", 1, 10), seeds: seedsFor("p") });
    await drained(it);
    expect(second.condition()).toMatchObject({ leading: false, archived: 0 });
    await first.close();
    expect(first.condition().leading).toBe(false);
    await it.queue.append({ records: recordsOf("p", 11, 20) });
    await drained(it);
    expect(second.condition()).toMatchObject({ leading: true, archived: 10 });
    expect(await archived(it)).toEqual(ids(recordsOf("p", 1, 20)));
  });

  it("begins with what others were given and have not finished", async () => {
    const it = await fresh();
    for (let first = 1; first <= 700; first += 100) {
      await it.queue.append({ records: recordsOf("p", first, first + 99), seeds: seedsFor("p") });
    }
    await it.redis.command("xgroup", "create", STREAM, GROUP, "0");
    await it.redis.command("xreadgroup", "GROUP", GROUP, "dead", "COUNT", 6, "STREAMS", STREAM, ">");
    // Deleted behind our back while it is pending.
    const [entry] = (await it.redis.command("xrange", STREAM, "-", "+", "COUNT", 1)) as [string][];
    await it.redis.command("xdel", STREAM, String(entry?.[0]));
    it.archiver();
    await drained(it);
    expect(await archived(it)).toEqual(ids(recordsOf("p", 101, 700)));
    expect(await it.redis.command("xpending", STREAM, GROUP)).toEqual([0, null, null, null]);
  });

  it("is followed by looking after what a former leader was given later", async () => {
    const it = await fresh();
    const archiver = it.archiver();
    await until(() => archiver.condition().leading, { what: "it to lead" });
    // Who leads makes the group before it reads, and not before it leads.
    await it.queue.append({ records: [recordOf("q", 1)], seeds: seedsFor("q") });
    await drained(it);
    // One that was frozen before it could see that it does not lead any more reads once more, and dies.
    await it.redis.command(
      "eval",
      `redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
      return #redis.call('XREADGROUP', 'GROUP', ARGV[1], 'zombie', 'STREAMS', KEYS[1], '>')`,
      ...[1, STREAM, GROUP, ...fieldsOf(recordOf("p", 1))],
    );
    await drained(it);
    expect((await archived(it)).toSorted()).toEqual(["p/1", "q/1"]);
  });

  it("of the lead by force leaves two who archive, and each record is archived once", async () => {
    const it = await fresh("postgres");
    const archivers = [it.archiver("first", 300), it.archiver("second", 300)];
    const records = recordsOf("p", 1, 6_000);
    for (let first = 0; first < records.length; first += 100) {
      await it.queue.append({ records: records.slice(first, first + 100), seeds: seedsFor("p") });
      if (first % 500 === 0) await it.redis.command("del", LEASE);
      if (first % 700 === 0) await it.redis.command("set", LEASE, first % 200 === 0 ? "first" : "second", "PX", 50);
    }
    await drained(it);
    expect((await archived(it)).toSorted()).toEqual(ids(records).toSorted());
    expect(await conflicts(it)).toBe(0);
    await until(async () => (await inStream(it.redis)).length === 0, { what: "an empty stream" });
    const sum = archivers.reduce((total, archiver) => total + archiver.condition().archived, 0);
    expect(sum).toBeGreaterThanOrEqual(6_000);
  });

  it("follows a leader that was killed or frozen, and its awakening doubles nothing", async () => {
    const redisUrl = await freshRedis();
    const databaseUrl = await freshDatabase();
    const it = await world(open(redisUrl, { commandTimeoutMs: 10_000 }), await openDatabase("postgres", databaseUrl));
    const start = async (name: string) => {
      const script = join(import.meta.dirname, "archiver-process.ts");
      const child = await startChild({
        command: process.execPath,
        args: [script, redisUrl, databaseUrl, STREAM, name, "600"],
        isReady: (line) => line.includes("ready"),
      });
      onTestFinished(() => child.kill());
      return child;
    };
    const children = new Map([
      ["a", await start("a")],
      ["b", await start("b")],
    ]);
    const leader = () =>
      until(async () => children.get(String(await it.redis.command("get", LEASE))) && it.redis.command("get", LEASE), {
        what: "someone to lead",
      });
    let sequence = 0;
    const feed = async (count: number) => {
      const records = recordsOf("p", sequence + 1, sequence + count);
      sequence += count;
      for (let at = 0; at < count; at += 500) await insist(it, records.slice(at, at + 500));
    };
    await feed(3_000);
    for (let turn = 0; turn < 2; turn++) {
      const frozen = String(await leader());
      await feed(1_500);
      children.get(frozen)?.pause();
      await feed(1_500);
      await drained(it);
      expect(await leader()).not.toBe(frozen);
      await feed(1_500);
      children.get(frozen)?.resume();
      await feed(1_500);
    }
    const killed = String(await leader());
    await feed(3_000);
    await children.get(killed)?.kill();
    await feed(1_000);
    await drained(it);
    expect(await leader()).not.toBe(killed);
    const all = await archived(it);
    expect(all).toHaveLength(sequence);
    expect(new Set(all).size).toBe(sequence);
    expect(await conflicts(it)).toBe(0);
  });
});

describe("when something is away", () => {
  it("keeps what it has and the lead while SQL is away, and goes on when it is back", async () => {
    const databaseUrl = new URL(await freshDatabase());
    await using proxy = await startTcpProxy(Number(databaseUrl.port));
    databaseUrl.port = String(proxy.port);
    const it = await world(
      open(await freshRedis(), { commandTimeoutMs: 10_000 }),
      await openDatabase("postgres", databaseUrl.href),
    );
    const archiver = it.archiver();
    await it.queue.append({ records: recordsOf("p", 1, 100), seeds: seedsFor("p") });
    await drained(it);
    proxy.cut();
    await it.queue.append({ records: recordsOf("p", 101, 200) });
    await until(() => archiver.condition().lastError, { what: "the archiver to say what is wrong" });
    expect(archiver.condition().leading).toBe(true);
    expect(await it.queue.condition()).toMatchObject({ unarchived: 100 });
    await it.queue.append({ records: recordsOf("p", 201, 300) });
    proxy.restore();
    await drained(it);
    await until(() => archiver.condition().lastError === undefined, { what: "the archiver to get on" });
    expect(await archived(it)).toEqual(ids(recordsOf("p", 1, 300)));
    expect(it.lines.filter((line) => line.includes("this instance archives"))).toHaveLength(1);
  });

  it("can be closed while SQL is away, and leaves what it had to the next one", async () => {
    const databaseUrl = new URL(await freshDatabase());
    await using proxy = await startTcpProxy(Number(databaseUrl.port));
    const direct = databaseUrl.href;
    databaseUrl.port = String(proxy.port);
    const redis = open(await freshRedis(), { commandTimeoutMs: 10_000 });
    const it = await world(redis, await openDatabase("postgres", databaseUrl.href));
    const archiver = it.archiver("first", LONG_MS);
    proxy.cut();
    await it.queue.append({ records: recordsOf("p", 1, 100), seeds: seedsFor("p") });
    await until(() => archiver.condition().lastError, { what: "the archiver to meet the outage" });
    await archiver.close();
    const other = await world(redis, await openDatabase("postgres", direct));
    other.archiver("second");
    await drained(it);
    expect(await archived(other)).toEqual(ids(recordsOf("p", 1, 100)));
  });

  it.each([
    ["is flushed", (_: RedisServer, redis: Client) => redis.command("flushall")],
    [
      "is killed and comes back empty",
      async (server: RedisServer) => {
        await server.kill();
        await server.restart();
      },
    ],
    ["loses the stream", (_: RedisServer, redis: Client) => redis.command("del", STREAM)],
    ["loses the hash of producers", (_: RedisServer, redis: Client) => redis.command("del", PRODUCERS)],
    ["loses the lease", (_: RedisServer, redis: Client) => redis.command("del", LEASE)],
    ["loses the consumer group", (_: RedisServer, redis: Client) => redis.command("xgroup", "destroy", STREAM, GROUP)],
  ])("goes on when Redis %s; what is queued afterwards is archived once", async (what, lose) => {
    await using server = await startRedis();
    const it = await onServer(server);
    it.archiver("one", 1_000);
    it.archiver("two", 1_000);
    const queued: Sealed[] = [];
    for (let turn = 0; turn < 3; turn++) {
      queued.push(...recordsOf("p", turn * 200 + 1, turn * 200 + 100));
      await insist(it, queued);
      await lose(server, it.redis);
      await until(() => it.redis.ping(), { what: "Redis to be reached" });
      // What was lost is sent again, as from the journal, and then goes on.
      await insist(it, queued);
      queued.push(...recordsOf("p", turn * 200 + 101, turn * 200 + 200));
      await insist(it, queued);
    }
    await until(() => drained(it).then(() => true), { what: "the queue to be empty" });
    // Where Redis is up, a loss is nothing to be alarmed about.
    if (!what.includes("killed")) expect(it.lines.filter((line) => line.includes("cannot be archived"))).toEqual([]);
    const all = await archived(it);
    expect(all).toHaveLength(queued.length);
    expect(all.toSorted()).toEqual(ids(queued).toSorted());
    expect(await conflicts(it)).toBe(0);
  });

  it("goes on when Redis was frozen while it read", async () => {
    await using server = await startRedis();
    const it = await onServer(server);
    const archiver = it.archiver("one", 1_000);
    await insist(it, recordsOf("p", 1, 50));
    await drained(it);
    for (let turn = 1; turn <= 2; turn++) {
      server.pause();
      await until(() => archiver.condition().lastError, { what: "the archiver to notice" });
      server.resume();
      await insist(it, recordsOf("p", turn * 50 + 1, turn * 50 + 50));
      await until(() => drained(it).then(() => true), { what: "the queue to be empty" });
      await until(() => archiver.condition().lastError === undefined, { what: "the archiver to get on" });
    }
    expect(await archived(it)).toEqual(ids(recordsOf("p", 1, 150)));
  });

  it("still knows where a record waits when one of its two entries is done with", async () => {
    const it = await fresh();
    const record = recordOf("p", 1);
    await it.queue.append({ records: [record], seeds: seedsFor("p") });
    await it.redis.command("del", PRODUCERS, `{${STREAM}}:tail:p`);
    await it.queue.append({ records: [record, recordOf("q", 1)], seeds: seedsFor("p", "q") });
    const backlog = createRedisBacklog({ redis: it.redis, streamKey: STREAM, consumer: "one", blockMs: 50 });
    onTestFinished(() => backlog.close());
    await backlog.open();
    const batch = await backlog.read();
    expect(batch).toHaveLength(3);
    await backlog.finish(batch.slice(0, 1));
    expect(await inStream(it.redis)).toEqual(["p/1", "q/1"]);
    expect(await it.queue.append({ records: [record], settled: true })).toEqual(["held"]);
    expect(await it.queue.sequences("p")).toEqual([1]);
    await backlog.finish(batch.slice(1));
    expect(await it.queue.append({ records: [record] })).toEqual(["late"]);
  });

  it("never takes out another record that Redis gave the same entry after it lost the stream", async () => {
    const it = await fresh();
    const backlog = createRedisBacklog({ redis: it.redis, streamKey: STREAM, consumer: "one", blockMs: 50 });
    onTestFinished(() => backlog.close());
    for (const record of recordsOf("p", 1, 2)) await it.queue.append({ records: [record], seeds: seedsFor("p") });
    await backlog.open();
    const batch = await backlog.read();
    await it.redis.command("flushdb");
    await it.redis.command("xadd", STREAM, batch[1]?.entry ?? "", ...fieldsOf(recordOf("p", 3)));
    await backlog.finish(batch);
    expect(await inStream(it.redis)).toEqual(["p/3"]);
  });

  it("archives once what was queued twice because Redis forgot it", async () => {
    const it = await fresh();
    const records = recordsOf("p", 1, 100);
    await it.queue.append({ records, seeds: seedsFor("p") });
    await it.redis.command("del", PRODUCERS, `{${STREAM}}:tail:p`);
    expect(await it.queue.append({ records, seeds: seedsFor("p") })).toEqual(records.map(() => "queued"));
    expect(await inStream(it.redis)).toHaveLength(200);
    it.archiver();
    await drained(it);
    expect(await archived(it)).toEqual(ids(records));
    expect(await inStream(it.redis)).toEqual([]);
    expect(await conflicts(it)).toBe(0);
  });
});

it("works on a cluster", async () => {
  await using cluster = await startRedisCluster();
  const nodes = cluster.nodes.map(({ port }) => ({ host: "127.0.0.1", port }));
  const redis = open(cluster.urls[0] ?? "", { mode: "cluster", nodes, commandTimeoutMs: 10_000 });
  for (const streamKey of ["audit_queue:stream", "{tenant}:audit"]) {
    const it = await world(redis, await openDatabase("sqlite"), streamKey);
    it.archiver();
    const records = [...recordsOf("a", 1, 500), ...recordsOf("b", 1, 500)];
    await it.queue.append({ records, seeds: seedsFor("a", "b") });
    await drained(it);
    expect(await archived(it)).toEqual(ids(records));
  }
});
