import { create } from "@bufbuild/protobuf";
import { describe, expect, it, onTestFinished } from "vitest";
import type { SwapOrder } from "../../src/cache/cache.ts";
import { createCacheService } from "../../src/cache/service.ts";
import type { SetOrder } from "../../src/cache/writes.ts";
import { CacheService, ValueSchema } from "../../src/gen/holdfast/v1/cache_pb.js";
import type { Database } from "../../src/infra/database.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { startEmbedded } from "./embedded.ts";
import { callOf, type Instance, type InstanceOptions, startInstance } from "./instance.ts";

const { method } = CacheService;
const LOCK = "jobs/nightly";
const under = (token: number) => ({ lock: LOCK, token });
const stale = (newest: number) => ({
  kind: "precondition",
  reason: "FENCING_TOKEN_STALE",
  metadata: { lock: LOCK, newest: String(newest) },
});
const REDIS_AWAY = { kind: "unavailable", reason: "REDIS_UNAVAILABLE", retryAfterMs: expect.any(Number) };
const SQL_AWAY = { kind: "unavailable", reason: "SQL_UNAVAILABLE", retryAfterMs: expect.any(Number) };

const order = (key: string, data: string, more: Partial<SetOrder> = {}): SetOrder => ({
  ...{ key, value: { data, contentType: "" }, expiry: "never", tags: [], ifAbsent: false, leaseToken: "", ...more },
});
const swap = (more: Partial<SwapOrder> = {}): SwapOrder => ({
  ...{ key: "k", expected: 0, value: { data: "swapped", contentType: "" }, expiry: "never", tags: [], requestId: "" },
  ...more,
});

/** Begins writes, and resolves when SQL has let them pass; `ended` is how they end. */
async function passedSql(on: Instance, begin: () => Promise<unknown>[]) {
  const before = on.raises;
  const writes = begin();
  const ended = Promise.allSettled(writes);
  await until(() => on.raises === before + writes.length, { what: "SQL to let the writes pass" });
  return { ended };
}

async function set(on: Pick<Instance, "cache" | "namespace">, text: string, token: number): Promise<string> {
  const [answer] = await on.cache.set(on.namespace, [order("k", text)], under(token));
  if (answer?.outcome === "refused") throw answer.error;
  return String(answer?.outcome);
}

interface Scene {
  /** The newest token that was granted; to be set by the test. */
  grant(token: number): void;
  /** Whose ways to Redis and to SQL are its own. */
  readonly far: Instance;
  readonly toRedis: TcpProxy;
  readonly toSql: TcpProxy;
  readonly near: Instance;
  inRedis(key: string): Promise<string | undefined>;
}

/** Two instances that share a Redis and a Postgres. */
async function setup(options: Partial<InstanceOptions> = {}): Promise<Scene> {
  const parts = new AsyncDisposableStack();
  onTestFinished(() => parts.disposeAsync());
  const redisUrl = options.redisUrl ?? (await freshRedis());
  const sqlUrl = await freshDatabase();
  const through = async (target: string) => {
    const url = new URL(target);
    const proxy = parts.use(await startTcpProxy(Number(url.port)));
    url.port = String(proxy.port);
    return { proxy, url: url.href };
  };
  const open = (url: string): Database =>
    parts.adopt(openPostgres({ url, poolSize: 4, statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 }), (it) =>
      it.close(),
    );
  const [redis, sql] = [await through(redisUrl), await through(sqlUrl)];
  const [database, farDatabase] = [open(sqlUrl), open(sql.url)];
  await migrate(database, migrations);
  const granted = new Map([[LOCK, 1]]);
  const shared = { granted, ...options };
  const near = parts.use(await startInstance({ ...shared, database, redisUrl }));
  const far = parts.use(await startInstance({ ...shared, database: farDatabase, redisUrl: redis.url }));
  return {
    grant: (token) => void granted.set(LOCK, token),
    ...{ near, far, toRedis: redis.proxy, toSql: sql.proxy },
    async inRedis(key) {
      const [bytes] = await near.redis.getBuffers([`holdfast:cache:{test/${key}}`]);
      return bytes == null ? undefined : bytes.toString("utf8").split("\n")[1];
    },
  };
}

describe.each([
  ["not durable", {}],
  ["durable", { durable: true }],
])("in a namespace that is %s", (_, policy) => {
  it("a holder who was followed by another can write nothing more, of whatever kind", async () => {
    const { grant, far, near } = await setup({ policy });
    expect(await set(far, "first", 1)).toBe("stored");
    const swapped = swap({ key: "s", requestId: "r" });
    const before = await far.cache.compareAndSet(far.namespace, swapped, under(1));
    expect(before.swapped).toBe(true);
    grant(2);
    expect(await set(near, "second", 2)).toBe("stored");

    const { cache, namespace } = far;
    await expect(set(far, "late", 1)).rejects.toMatchObject(stale(2));
    const orders = [order("k", "late"), order("other", "late", { ifAbsent: true })];
    await expect(cache.set(namespace, orders, under(1))).rejects.toMatchObject(stale(2));
    await expect(cache.remove(namespace, ["k", "other"], under(1))).rejects.toMatchObject(stale(2));
    // Of a version that is there, and of one that is not.
    const version = (await far.get("k")).record?.version ?? 0;
    for (const expected of [version, 5]) {
      await expect(cache.compareAndSet(namespace, swap({ expected }), under(1))).rejects.toMatchObject(stale(2));
    }
    // What was carried out is answered as it was.
    expect(await cache.compareAndSet(namespace, swapped, under(1))).toMatchObject({ swapped: true });
    expect(await near.cache.compareAndSet(near.namespace, swapped, under(1))).toMatchObject({ swapped: true });
    await expect(set(far, "unheard of", 3)).rejects.toMatchObject({ reason: "FENCING_TOKEN_UNKNOWN" });
    for (const one of [far, near]) {
      expect(await one.value("k")).toBe("second");
      expect(await one.value("other")).toBeUndefined();
    }
    const [removed] = await near.cache.remove(near.namespace, ["k"], under(2));
    expect(removed).toMatchObject({ outcome: "removed", existed: true });
  });

  it("a write that is held up on its way is refused when one under a newer token was made meanwhile", async () => {
    const { grant, far, near, toRedis } = await setup({ policy, timeoutMs: 20_000 });
    expect(await set(far, "first", 1)).toBe("stored");
    toRedis.freeze();
    const { ended } = await passedSql(far, () => [
      set(far, "late", 1),
      far.cache.compareAndSet(far.namespace, swap({ key: "fresh" }), under(1)),
      far.cache.set(far.namespace, [order("k", "late"), order("other", "late"), order("k", "later")], under(1)),
      far.cache.remove(far.namespace, ["k", "other"], under(1)),
    ]);
    grant(2);
    expect(await set(near, "second", 2)).toBe("stored");
    const heard: string[] = [];
    const stop = new AbortController();
    const watching = (async () => {
      for await (const event of far.cache.feed.watch("test", "", 60_000, stop.signal)) heard.push(event.kind);
    })().catch(() => {});
    await until(() => heard.length === 1, { what: "the watch to be open" });
    toRedis.thaw();
    for (const one of await ended) {
      const refused = { outcome: "refused", error: stale(2) };
      if (one.status === "rejected") expect(one.reason).toMatchObject(stale(2));
      else expect(one.value).toSatisfy((all: unknown[]) => all.length > 0 && all.every((it) => matches(it, refused)));
    }
    expect(await near.value("k")).toBe("second");
    expect(await far.value("k")).toBe("second");
    expect(await near.value("other")).toBeUndefined();
    expect(await near.value("fresh")).toBeUndefined();
    expect(heard).toEqual(["opened"]);
    stop.abort();
    await watching;
  });

  it("a batch that a newer token comes into has an error for each item that it came before", async () => {
    const { grant, far, near, toRedis } = await setup({ policy, timeoutMs: 20_000 });
    const { setMany, deleteMany } = createCacheService({ cache: far.cache, instanceId: "i" }).rpcs;
    if (typeof setMany !== "function" || typeof deleteMany !== "function") throw new Error("they are not mounted");
    const value = create(ValueSchema, { kind: { case: "text", value: "late" } });
    const fencing = { lock: LOCK, token: 1n };
    const items = [{ key: "k", value }, { key: "" }, { key: "other", value, ifAbsent: true }];
    toRedis.freeze();
    const { ended } = await passedSql(far, () => [
      Promise.resolve(setMany(create(method.setMany.input, { namespace: "test", items, fencing }), callOf("SetMany"))),
      Promise.resolve(
        deleteMany(
          create(method.deleteMany.input, { namespace: "test", keys: ["k", ""], fencing }),
          callOf("DeleteMany"),
        ),
      ),
    ]);
    grant(2);
    expect(await set(near, "second", 2)).toBe("stored");
    toRedis.thaw();
    const late = { error: { code: "FAILED_PRECONDITION", reason: "FENCING_TOKEN_STALE", field: "" } };
    const bad = { error: { code: "INVALID_ARGUMENT", field: "key" } };
    expect(await ended).toMatchObject([{ value: { results: [late, bad, late] } }, { value: { results: [late, bad] } }]);
    expect(await near.value("k")).toBe("second");
  });

  it("nobody writes under a lock while SQL cannot be asked for newer tokens", async () => {
    const { far, near, toSql } = await setup({ policy });
    expect(await set(far, "first", 1)).toBe("stored");
    toSql.cut();
    await expect(set(far, "second", 1)).rejects.toMatchObject(SQL_AWAY);
    await expect(far.cache.remove(far.namespace, ["k"], under(1))).rejects.toMatchObject(SQL_AWAY);
    expect(await near.value("k")).toBe("first");
    toSql.restore();
    await until(() => set(far, "third", 1).catch(() => undefined), { what: "SQL to answer again" });
    expect(await near.value("k")).toBe("third");
  });

  it("a copy in memory outlives a write that is refused", async () => {
    const { cache, namespace, put, database } = await startEmbedded({
      policy: { ...policy, l1TtlMs: 60_000 },
      granted: new Map([[LOCK, 1]]),
    });
    await put("k", "v");
    expect(cache.reads.fromMemory(namespace, "k")).toBeDefined();
    await database.write("INSERT INTO fence (lock, token, seen_ms) VALUES ($1, 2, 0)", [LOCK]);
    await expect(cache.set(namespace, [order("k", "late")], under(1))).rejects.toMatchObject(stale(2));
    expect(cache.reads.fromMemory(namespace, "k")).toMatchObject({ record: { value: { data: "v" } } });
  });
});

function matches(value: unknown, wanted: object): boolean {
  try {
    expect(value).toMatchObject(wanted);
    return true;
  } catch {
    return false;
  }
}

describe("in a namespace that is not durable", () => {
  it("a Redis that was flushed meanwhile asks SQL, and refuses what was under way under an older token", async () => {
    const { grant, far, near, toRedis, inRedis } = await setup({ timeoutMs: 20_000 });
    expect(await set(far, "first", 1)).toBe("stored");
    toRedis.freeze();
    const { ended } = await passedSql(far, () => [set(far, "late", 1)]);
    grant(2);
    expect(await set(near, "second", 2)).toBe("stored");
    await near.redis.command("flushdb");
    toRedis.thaw();
    expect(await ended).toMatchObject([{ reason: stale(2) }]);
    expect(await inRedis("k")).toBeUndefined();
    expect(await set(near, "third", 2)).toBe("stored");
    expect(await inRedis("k")).toBe("third");
  });

  it("the last under a frozen Redis is the one with the newest token, in whatever order it reads them", async () => {
    await using server = await startRedis();
    const { grant, far, near } = await setup({ redisUrl: server.url, timeoutMs: 20_000 });
    for (let token = 2; token < 12; token += 2) {
      const [older, newer] = token % 4 === 0 ? [far, near] : [near, far];
      grant(token - 1);
      expect(await set(older, "first", token - 1)).toBe("stored");
      server.pause();
      const late = await passedSql(older, () =>
        Array.from({ length: 5 }, (_, i) => set(older, `late ${i}`, token - 1)),
      );
      grant(token);
      const last = await passedSql(newer, () => [set(newer, "newest", token)]);
      server.resume();
      expect(await last.ended).toMatchObject([{ value: "stored" }]);
      for (const one of await late.ended) if (one.status === "rejected") expect(one.reason).toMatchObject(stale(token));
      expect(await near.value("k")).toBe("newest");
    }
  });

  it.each(["cut off", "frozen"])(
    "without a Redis that answers (%s) nothing is written, nor kept for later",
    async (how) => {
      const { far, near, toRedis, inRedis } = await setup();
      expect(await set(far, "first", 1)).toBe("stored");
      if (how === "frozen") toRedis.freeze();
      else toRedis.cut();
      const { cache, namespace, breaker } = far;
      await expect(set(far, "unprepared", 1)).rejects.toMatchObject(REDIS_AWAY);
      const isOpen = async () => {
        await far.get("anything");
        return breaker.state === "open";
      };
      await until(isOpen, { what: "the breaker to open" });
      await expect(set(far, "late", 1)).rejects.toMatchObject(REDIS_AWAY);
      await expect(cache.set(namespace, [order("a", "late"), order("b", "late")], under(1))).rejects.toMatchObject(
        REDIS_AWAY,
      );
      await expect(cache.remove(namespace, ["k"], under(1))).rejects.toMatchObject(REDIS_AWAY);
      await expect(cache.compareAndSet(namespace, swap({ key: "s" }), under(1))).rejects.toMatchObject(REDIS_AWAY);
      expect(await far.layers.unhealed()).toBe(0);
      // Others go on as ever.
      expect(await far.set("unfenced", "kept")).toBe(true);
      expect(await far.layers.unhealed()).toBe(1);
      if (how === "frozen") toRedis.thaw();
      else toRedis.restore();
      const isClosed = async () => {
        await breaker.forceTrial();
        return breaker.state === "closed";
      };
      await until(isClosed, { what: "the breaker to close" });
      expect(["first", "unprepared"]).toContain(await inRedis("k"));
      expect(await near.value("s")).toBeUndefined();
      expect(await set(far, "back", 1)).toBe("stored");
      expect(await near.value("k")).toBe("back");
    },
  );

  it("what is kept of a key for later is healed before it is written under a lock", async () => {
    const { far, near, toRedis } = await setup({ failureThreshold: 1_000 });
    await far.set("k", "old");
    toRedis.cut();
    expect(await far.set("k", "kept")).toBe(true);
    toRedis.restore();
    await until(() => set(far, "fenced", 1).catch(() => undefined), { what: "Redis to be back" });
    expect(await far.layers.unhealed()).toBe(0);
    expect(await far.value("k")).toBe("fenced");
    expect(await near.value("k")).toBe("fenced");
  });
});

it("in a durable namespace writes under a lock go on without Redis, and are held to what came meanwhile", async () => {
  const { grant, far, near, toRedis } = await setup({ policy: { durable: true } });
  expect(await set(far, "first", 1)).toBe("stored");
  toRedis.cut();
  expect(await set(far, "second", 1)).toBe("stored");
  grant(2);
  expect(await set(near, "third", 2)).toBe("stored");
  await expect(set(far, "late", 1)).rejects.toMatchObject(stale(2));
  toRedis.restore();
  await until(
    async () => {
      await far.breaker.forceTrial();
      return far.breaker.state === "closed" && (await far.layers.unhealed()) === 0;
    },
    { what: "everything to be healed" },
  );
  for (const one of [far, near]) expect(await one.value("k")).toBe("third");
});
