import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CacheChange_Kind, CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { type CacheClient, createCacheClient, type Watching } from "../support/cache-client.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

/*
 * Promises: of two instances that share a Redis, or a Postgres alone, each serves from its own memory, but never what it has heard
 * to be old; each reads its own writes; and when messages may have been lost, it asks the shared layer before it trusts its memory
 * again, and says so to those who watch.
 */

const { method } = CacheService;
const namespace = "coherence";

interface Pair extends AsyncDisposable {
  readonly one: CacheClient;
  readonly two: CacheClient;
  readonly servers: readonly HoldfastProcess[];
  /** Between the second instance and what the two share. */
  readonly proxy: TcpProxy;
  /** Ends the connections by which the second instance hears of changes, from the server's side. */
  killListener(): Promise<void>;
}

async function pairOnRedis(): Promise<Pair> {
  const parts = new AsyncDisposableStack();
  const redis: RedisServer = parts.use(await startRedis());
  const proxy = parts.use(await startTcpProxy(redis.port));
  const shared = { DATABASE_URL: await freshDatabase(), CIRCUIT_BREAKER_RESET_TIMEOUT: "200" };
  const servers = [
    parts.use(await startHoldfast({ ...shared, REDIS_URL: redis.url })),
    parts.use(await startHoldfast({ ...shared, REDIS_URL: `redis://127.0.0.1:${proxy.port}` })),
  ];
  const killListener = async () => {
    const operator = new Redis(redis.url);
    // Both instances' subscribers: which one belongs to whom cannot be told from here.
    await operator.call("CLIENT", "KILL", "TYPE", "pubsub");
    operator.disconnect();
  };
  return assemble(parts, servers, proxy, killListener);
}

async function pairOnPostgres(): Promise<Pair> {
  const parts = new AsyncDisposableStack();
  const direct = await freshDatabase();
  const url = new URL(direct);
  const proxy = parts.use(await startTcpProxy(Number(url.port)));
  url.port = String(proxy.port);
  const servers = [
    parts.use(await startHoldfast({ DATABASE_URL: direct })),
    parts.use(await startHoldfast({ DATABASE_URL: url.href })),
  ];
  const killListener = async () => {
    const { default: pg } = await import("pg");
    const operator = new pg.Client({ connectionString: direct });
    await operator.connect();
    await operator.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE '%LISTEN %' AND pid <> pg_backend_pid()",
    );
    await operator.end();
  };
  return assemble(parts, servers, proxy, killListener);
}

function assemble(
  parts: AsyncDisposableStack,
  servers: readonly HoldfastProcess[],
  proxy: TcpProxy,
  killListener: () => Promise<void>,
): Pair {
  const [one, two] = servers.map(({ grpcAddress }) => parts.use(createCacheClient(grpcAddress)));
  if (one === undefined || two === undefined) throw new Error("two instances are wanted");
  return { one, two, servers, proxy, killListener, [Symbol.asyncDispose]: () => parts.disposeAsync() };
}

describe.each([
  ["Redis", pairOnRedis],
  ["Postgres alone", pairOnPostgres],
] as const)("two instances on %s", (_, start) => {
  let pair: Pair;
  let one: CacheClient;
  let two: CacheClient;
  let watching: Watching;
  beforeAll(async () => {
    pair = await start();
    ({ one, two } = pair);
    watching = await two.watch({ namespace });
    await inMemoryOf(two, "warm-up");
  });
  afterAll(() => pair[Symbol.asyncDispose]());

  /** Until the instance serves the key from its memory: it hears of changes then. */
  async function inMemoryOf(client: CacheClient, key: string): Promise<void> {
    if ((await client.text(namespace, key)) === undefined) await one.put(namespace, key, "0");
    const fromMemory = async () => (await client.call(method.get, { namespace, key })).servedBy === "l1";
    await until(fromMemory, { what: `${key} to be served from memory` });
  }

  /** Until the second instance tells its watchers of this version of the key. */
  function heard(key: string, version: bigint): Promise<boolean> {
    const isIt = () =>
      watching.events.some(
        ({ event }) => event.case === "change" && event.value.key === key && event.value.version >= version,
      );
    return until(isIt, { what: `the change of ${key} to be heard of` });
  }

  const discontinuities = () => watching.events.filter(({ event }) => event.case === "discontinuity").length;

  it("the second never serves what it has heard to be old", async () => {
    let fromMemory = 0;
    for (let number = 1; number <= 100; number++) {
      const { reply } = await one.put(namespace, "seen", String(number));
      await heard("seen", reply.version);
      for (let read = 0; read < 3; read++) {
        const { reply: found, servedBy } = await two.call(method.get, { namespace, key: "seen" });
        expect(found.entry?.version).toBe(reply.version);
        if (servedBy === "l1") fromMemory++;
      }
    }
    // Without memory this would prove nothing.
    expect(fromMemory).toBeGreaterThan(50);
  });

  it("each reads its own writes, while the other writes as well", async () => {
    const writeAndRead = async (client: CacheClient, mine: string) => {
      let last = 0n;
      for (let number = 1; number <= 100; number++) {
        const { reply } = await client.put(namespace, "both", `${mine} ${number}`);
        const { reply: found } = await client.call(method.get, { namespace, key: "both" });
        expect(reply.version).toBeGreaterThan(last);
        expect(found.entry?.version ?? 0n).toBeGreaterThanOrEqual(reply.version);
        last = found.entry?.version ?? 0n;
      }
    };
    await Promise.all([writeAndRead(one, "one"), writeAndRead(two, "two")]);
    const agreed = async () => (await one.text(namespace, "both")) === (await two.text(namespace, "both"));
    await until(agreed, { what: "both to show the same" });
  });

  it("a delete, a tag and a whole namespace are invalid on both once heard of", async () => {
    const told = (kind: CacheChange_Kind) =>
      watching.events.filter(({ event }) => event.case === "change" && event.value.kind === kind).length;
    for (const [kind, invalidate] of [
      [CacheChange_Kind.DELETED, () => one.call(method.delete, { namespace, key: "doomed" })],
      [CacheChange_Kind.TAG_INVALIDATED, () => one.call(method.invalidateTags, { namespace, tags: ["t2"] })],
      [CacheChange_Kind.NAMESPACE_INVALIDATED, () => one.call(method.invalidateNamespace, { namespace })],
    ] as const) {
      await one.put(namespace, "doomed", "v", { tags: ["t1", "t2"] });
      await one.put(namespace, "other", "v", { tags: ["t1"] });
      await until(async () => (await two.text(namespace, "doomed")) === "v", { what: "the value on the second" });
      await inMemoryOf(two, "doomed");
      await inMemoryOf(two, "other");
      const before = told(kind);
      await invalidate();
      expect(await one.text(namespace, "doomed")).toBeUndefined();
      await until(() => told(kind) > before, { what: "the invalidation to be heard of" });
      expect(await two.text(namespace, "doomed")).toBeUndefined();
      const survives = kind !== CacheChange_Kind.NAMESPACE_INVALIDATED;
      expect(await two.text(namespace, "other")).toBe(survives ? "v" : undefined);
    }
  });

  it("a version that the other has moved on from does not match", async () => {
    const { reply } = await one.put(namespace, "cas", "first");
    const value = (text: string) => ({ kind: { case: "text", value: text } }) as const;
    const swap = (client: CacheClient, text: string) =>
      client.call(method.compareAndSet, {
        namespace,
        key: "cas",
        expectedVersion: reply.version,
        value: value(text),
      });
    const both = await Promise.all([swap(one, "one"), swap(two, "two")]);
    expect(both.filter(({ reply: { swapped } }) => swapped)).toHaveLength(1);
    const winner = both[0]?.reply.swapped ? "one" : "two";
    expect(await one.text(namespace, "cas", true)).toBe(winner);
    expect(await two.text(namespace, "cas", true)).toBe(winner);
  });

  it("a second that was cut off serves nothing old once it is back, and its watchers are told of the gap", async () => {
    const keys = Array.from({ length: 20 }, (_, i) => `cut-${i}`);
    for (const key of keys) await one.put(namespace, key, "old");
    for (const key of keys) await inMemoryOf(two, key);
    const before = discontinuities();
    pair.proxy.cut();
    for (const key of keys) await one.put(namespace, key, "new");
    await until(() => discontinuities() > before, { what: "the gap to be told of" });
    const lost = discontinuities();
    pair.proxy.restore();
    await until(() => discontinuities() > lost, { what: "the end of the gap to be told of" });
    const degraded = async () => (await two.call(method.get, { namespace, key: "cut-0" })).degraded;
    await until(async () => !(await degraded()), { what: "the shared layer to answer again" });
    for (const key of keys) expect(await two.text(namespace, key)).toBe("new");
    await inMemoryOf(two, "cut-0");
  });

  it("one that lost only the connection it listens on asks the shared layer for each copy before it serves it again", async () => {
    const keys = Array.from({ length: 20 }, (_, i) => `deaf-${i}`);
    for (const key of keys) await one.put(namespace, key, "old");
    for (const key of keys) await inMemoryOf(two, key);
    const before = discontinuities();
    await pair.killListener();
    for (const key of keys) await one.put(namespace, key, "new");
    await until(() => discontinuities() > before, { what: "the gap to be told of" });
    for (const key of keys) expect(await two.text(namespace, key)).toBe("new");
    for (const key of keys) await inMemoryOf(two, key);
    const { reply } = await one.put(namespace, "deaf-0", "newer");
    await heard("deaf-0", reply.version);
    expect(await two.text(namespace, "deaf-0")).toBe("newer");
  });

  it("numbers what a watcher is told without a hole", () => {
    expect(watching.ended).toBe(false);
    expect(watching.events.map(({ sequence }) => sequence)).toEqual(watching.events.map((_, i) => BigInt(i + 1)));
    expect(watching.events[0]?.event.case).toBe("opened");
  });
});
