import { describe, expect, it } from "vitest";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { type CacheClient, createCacheClient } from "../support/cache-client.ts";
import type { HoldfastProcess } from "../support/holdfast-process.ts";
import { durableConfig, healed, type Setup, startSetup } from "./outage.ts";

/*
 * Promises: what changed while Redis was away is remembered in SQL, so that it is healed also when the instance that knew of it was
 * stopped or killed meanwhile; and an instance that starts beside a Redis full of old values never serves one of them.
 */

const { method } = CacheService;
const keys = Array.from({ length: 20 }, (_, i) => `k${i}`);

async function write(client: CacheClient, namespace: string, value: string): Promise<void> {
  for (const key of keys) await client.put(namespace, key, value, { tags: [`tag-${key}`] });
}

/** Every kind of change, for which Redis has something older. */
async function changeAll(client: CacheClient, namespace: string): Promise<void> {
  for (const key of keys.slice(0, 17)) await client.put(namespace, key, "new", { tags: [`tag-${key}`] });
  await client.call(method.delete, { namespace, key: "k17" });
  await client.call(method.invalidateTags, { namespace, tags: ["tag-k18"] });
  await client.call(method.increment, { namespace, key: "counter", delta: 2n });
}

const expected = keys.map((_, i) => (i < 17 ? "new" : i === 19 ? "old" : undefined));

async function seen(server: HoldfastProcess, namespace: string, bypassL1: boolean) {
  using client = createCacheClient(server.grpcAddress);
  const { reply, degraded } = await client.call(method.getMany, { namespace, keys, bypassL1 });
  return { values: reply.results.map(({ entry }) => entry?.value?.kind.value), degraded };
}

async function isNewEverywhere(setup: Setup, namespace: string): Promise<void> {
  await healed(setup);
  for (const server of setup.instances) {
    for (const bypassL1 of [true, false]) {
      expect(await seen(server, namespace, bypassL1)).toEqual({ values: expected, degraded: false });
    }
    using client = createCacheClient(server.grpcAddress);
    expect(await client.text(namespace, "counter", true)).toBe("3");
  }
}

describe("an instance", () => {
  it.each([
    ["cluster", "killed", "default"],
    ["cluster", "stopped", "truth"],
    ["single", "stopped", "default"],
    ["single", "killed", "truth"],
  ] as const)(
    "of the %s topology, %s and started again while Redis is away: what changed in namespace %s is healed",
    async (topology, how, namespace) => {
      await using parts = new AsyncDisposableStack();
      const setup = parts.use(await startSetup(topology, { HOLDFAST_CONFIG: durableConfig(parts) }));
      const { redis, instances } = setup;
      const [one] = instances;
      if (one === undefined) throw new Error("no instance");
      await healed(setup);
      using client = createCacheClient(one.grpcAddress);
      await write(client, namespace, "old");
      await client.call(method.increment, { namespace, key: "counter" });
      await redis.kill();
      await changeAll(client, namespace);
      expect(await setup.unhealed()).toBeGreaterThan(0);
      if (how === "killed") await one.kill();
      await one.restart();
      // Still without Redis: the new ones are known, and nothing else is made up.
      const { values, degraded } = await seen(one, namespace, false);
      expect(degraded).toBe(true);
      expect(values.slice(0, 19)).toEqual(expected.slice(0, 19));
      await redis.restart();
      await isNewEverywhere(setup, namespace);
    },
  );

  it.each([
    ["cluster", "default"],
    ["cluster", "truth"],
    ["single", "default"],
  ] as const)(
    "of the %s topology, started when Redis is already back with old values, serves none of them from namespace %s",
    async (topology, namespace) => {
      await using parts = new AsyncDisposableStack();
      const setup = parts.use(await startSetup(topology, { HOLDFAST_CONFIG: durableConfig(parts) }));
      const { redis, instances } = setup;
      const [one] = instances;
      if (one === undefined) throw new Error("no instance");
      await healed(setup);
      using client = createCacheClient(one.grpcAddress);
      await write(client, namespace, "old");
      await client.call(method.increment, { namespace, key: "counter" });
      await redis.kill();
      await changeAll(client, namespace);
      for (const server of instances) await server.kill();
      await redis.restart();
      // At once, before anything can have been healed, and again and again meanwhile.
      await one.restart();
      for (let turn = 0; turn < 20; turn++) {
        const { values } = await seen(one, namespace, turn % 2 === 0);
        expect(values.slice(0, 19)).toEqual(expected.slice(0, 19));
      }
      for (const server of instances.slice(1)) await server.restart();
      await isNewEverywhere(setup, namespace);
    },
  );
});
