import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import type { IncrementOrder, SwapOrder } from "../../src/cache/cache.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { freshRedis } from "../support/fresh.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { startEmbedded } from "./embedded.ts";
import { startInstance } from "./instance.ts";

const once: IncrementOrder = { delta: 5n, initial: 0n, expiry: "never", requestId: "r-1" };
const swap: SwapOrder = {
  key: "k",
  expected: 0,
  value: { data: "1", contentType: "" },
  expiry: "never",
  tags: [],
  requestId: "r-1",
};
const REUSED = { kind: "precondition", reason: "REQUEST_ID_REUSED", metadata: { field: "request_id" } };

describe("a retry with the same request id", () => {
  it("adds nothing, also while Redis, which remembers the first attempt, is away", async () => {
    const parts = new AsyncDisposableStack();
    onTestFinished(() => parts.disposeAsync());
    const redisUrl = new URL(await freshRedis());
    const proxy = parts.use(await startTcpProxy(Number(redisUrl.port)));
    redisUrl.port = String(proxy.port);
    const directory = parts.adopt(scratchDirectory("requests"), (it) => it.remove());
    const database = parts.adopt(openSqlite({ path: join(directory.path, "cache.db") }), (it) => it.close());
    await migrate(database, migrations);
    const one = parts.use(await startInstance({ redisUrl: redisUrl.href, database }));
    const first = await one.cache.increment(one.namespace, "visits", once);
    const swapped = await one.cache.compareAndSet(one.namespace, swap);
    expect(first).toMatchObject({ value: 5n, layer: "redis", degraded: false });
    expect(swapped.swapped).toBe(true);
    proxy.cut();
    const isOpen = async () => {
      await one.get("anything");
      return one.breaker.state === "open";
    };
    await until(isOpen, { what: "the breaker to open" });
    const again = await one.cache.increment(one.namespace, "visits", once);
    expect(again).toMatchObject({ value: 5n, version: first.version });
    expect(await one.cache.compareAndSet(one.namespace, swap)).toMatchObject({
      swapped: true,
      version: swapped.version,
    });
  });

  it("is a new request when ten minutes have passed", async () => {
    const { cache, namespace, clock } = await startEmbedded();
    expect((await cache.increment(namespace, "visits", once)).value).toBe(5n);
    clock.move(599_000);
    expect((await cache.increment(namespace, "visits", once)).value).toBe(5n);
    clock.move(2_000);
    expect((await cache.increment(namespace, "visits", once)).value).toBe(10n);
  });

  it("is decided anew when the first attempt lost its race", async () => {
    const { cache, namespace, put } = await startEmbedded();
    await put("k", "another's");
    expect((await cache.compareAndSet(namespace, swap)).swapped).toBe(false);
    await cache.remove(namespace, ["k"]);
    expect((await cache.compareAndSet(namespace, swap)).swapped).toBe(true);
    expect((await cache.compareAndSet(namespace, swap)).swapped).toBe(true);
  });
});

describe.each(["by this instance", "by the shared layer"])("a request id remembered %s", (by) => {
  async function setup() {
    const first = await startEmbedded();
    if (by === "by this instance") return { first, second: first };
    return { first, second: await startEmbedded({ database: first.database, clock: first.clock }) };
  }

  it("does not name another RPC", async () => {
    const { first, second } = await setup();
    await first.cache.compareAndSet(first.namespace, swap);
    await expect(second.cache.increment(second.namespace, "k", once)).rejects.toMatchObject(REUSED);
    expect((await second.cache.reads.get(second.namespace, "k", true)).record?.value.data).toBe("1");
  });

  it.each<[string, Partial<IncrementOrder>]>([
    ["delta", { delta: 6n }],
    ["initial value", { initial: 1n }],
    ["expiry", { expiry: { ttlMs: 1_000 } }],
  ])("does not name an Increment with another %s", async (_, change) => {
    const { first, second } = await setup();
    await first.cache.increment(first.namespace, "visits", once);
    const other = second.cache.increment(second.namespace, "visits", { ...once, ...change });
    await expect(other).rejects.toMatchObject(REUSED);
    expect((await second.cache.increment(second.namespace, "visits", once)).value).toBe(5n);
  });

  it.each<[string, Partial<SwapOrder>]>([
    ["version", { expected: 7 }],
    ["value", { value: { data: "2", contentType: "" } }],
    ["kind of value", { value: { data: new Uint8Array([0x31]), contentType: "" } }],
    ["content type", { value: { data: "1", contentType: "text/plain" } }],
    ["tag", { tags: ["t"] }],
    ["expiry", { expiry: "policy" }],
  ])("does not name a CompareAndSet with another %s", async (_, change) => {
    const { first, second } = await setup();
    await first.cache.compareAndSet(first.namespace, swap);
    const other = second.cache.compareAndSet(second.namespace, { ...swap, ...change });
    await expect(other).rejects.toMatchObject(REUSED);
    expect((await second.cache.compareAndSet(second.namespace, swap)).swapped).toBe(true);
  });
});
