import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { describe, expect, it, onTestFinished } from "vitest";
import { createCacheService } from "../../src/cache/service.ts";
import { CacheServiceExistsRequestSchema } from "../../src/gen/holdfast/v1/cache_pb.js";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { freshRedis } from "../support/fresh.ts";
import { movedClock } from "../support/moved-clock.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { startEmbedded } from "./embedded.ts";
import { callOf, type Instance, startInstance } from "./instance.ts";

/** An instance on a clock that is moved, and a Redis that can be cut off. */
async function setup() {
  const parts = new AsyncDisposableStack();
  onTestFinished(() => parts.disposeAsync());
  const redisUrl = new URL(await freshRedis());
  const proxy = parts.use(await startTcpProxy(Number(redisUrl.port)));
  redisUrl.port = String(proxy.port);
  const directory = parts.adopt(scratchDirectory("fail-safe"), (it) => it.remove());
  const database = parts.adopt(openSqlite({ path: join(directory.path, "cache.db") }), (it) => it.close());
  await migrate(database, migrations);
  const clock = movedClock();
  const policy = { l1TtlMs: 3_600_000, staleForMs: 60_000 };
  const one = parts.use(await startInstance({ redisUrl: redisUrl.href, database, clock, policy }));
  return { one, proxy, clock };
}

async function set({ cache, namespace }: Instance, key: string, ttlMs: number): Promise<void> {
  const value = { data: "v", contentType: "" };
  await cache.set(namespace, [{ key, value, expiry: { ttlMs }, tags: [], ifAbsent: false, leaseToken: "" }]);
}

async function exists(one: Instance, key: string): Promise<boolean> {
  const { rpcs } = createCacheService({ cache: one.cache, instanceId: "i" });
  if (typeof rpcs.exists !== "function") throw new Error("Exists is not mounted");
  const request = create(CacheServiceExistsRequestSchema, { namespace: one.namespace.name, key });
  const reply: unknown = await rpcs.exists(request, callOf("Exists"));
  return typeof reply === "object" && reply !== null && "exists" in reply && reply.exists === true;
}

describe("an entry that has expired", () => {
  it("is served stale while Redis is away, until its stale time has passed", async () => {
    const { one, proxy, clock } = await setup();
    await set(one, "k", 10_000);
    clock.move(11_000);
    expect(await one.get("k")).toMatchObject({ outcome: "miss", degraded: false });
    await set(one, "k", 10_000);
    proxy.cut();
    clock.move(9_000);
    expect(await one.cache.reads.get(one.namespace, "k", true)).toMatchObject({ outcome: "hit", degraded: true });
    clock.move(2_000);
    expect(await one.get("k")).toMatchObject({ outcome: "stale", degraded: true, layer: "l1" });
    expect((await one.get("k")).record?.value.data).toBe("v");
    expect(one.namespace.counters.staleHits).toBe(2);
    clock.move(60_000);
    expect(await one.get("k")).toMatchObject({ outcome: "miss", degraded: true });
  });

  it("does not exist, also while Redis is away", async () => {
    const { one, proxy, clock } = await setup();
    await set(one, "k", 10_000);
    expect(await exists(one, "k")).toBe(true);
    proxy.cut();
    clock.move(11_000);
    expect(await one.get("k")).toMatchObject({ outcome: "stale" });
    expect(await exists(one, "k")).toBe(false);
  });

  it("is served stale to who would have to wait for another caller's lease, and to nobody else", async () => {
    const { cache, namespace, put, clock } = await startEmbedded({ policy: { l1TtlMs: 3_600_000 } });
    const wish = { ttlMs: 60_000, waitMs: 60_000, signal: AbortSignal.timeout(60_000) };
    await put("k", "v", 10_000);
    clock.move(11_000);
    const holder = await cache.reads.getOrLease(namespace, "k", false, wish);
    expect(holder).toMatchObject({ outcome: "stale", lease: {} });
    const other = await cache.reads.getOrLease(namespace, "k", false, wish);
    expect(other).toMatchObject({ outcome: "stale", degraded: false });
    expect(other.lease).toBeUndefined();
    expect(await cache.reads.get(namespace, "k", false)).toMatchObject({ outcome: "miss", record: undefined });
    clock.move(60_000);
    const late = await cache.reads.getOrLease(namespace, "k", false, { ...wish, waitMs: 0 });
    expect(late.outcome).toBe("miss");
  });
});
