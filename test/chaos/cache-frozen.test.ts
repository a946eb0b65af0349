import { expect, it } from "vitest";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { type Answer, type CacheClient, CallFailed, createCacheClient } from "../support/cache-client.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { durableConfig } from "./outage.ts";

/*
 * Promise: every RPC that meets a frozen Redis, unprepared and with the breaker still closed, is answered within one command
 * timeout, however many steps it takes. The timeout is long here and the slack is less than another one, so that a call which
 * waited twice is found out.
 */

const TIMEOUT_MS = 4_000;
const SLACK_MS = 3_500;
const { method } = CacheService;

const kinds = [
  {
    name: "a Redis",
    start: async () => {
      const redis = await startRedis();
      return { url: redis.url, nodes: [redis] };
    },
  },
  {
    name: "a Redis Cluster",
    start: async () => {
      const { nodes } = await startRedisCluster();
      return { url: `redis-cluster://${nodes.map(({ port }) => `127.0.0.1:${port}`).join(",")}`, nodes };
    },
  },
];

function everyCall(client: CacheClient, namespace: string): Record<string, () => Promise<Answer<unknown>>> {
  const key = "k";
  const value = { kind: { case: "text", value: "v" } } as const;
  return {
    get: () => client.call(method.get, { namespace, key: "unseen" }),
    getTagged: () => client.call(method.get, { namespace, key: "tagged", bypassL1: true }),
    getLease: () => client.call(method.get, { namespace, key: "cold", leaseTtl: { seconds: 1n }, waitTimeout: {} }),
    getMany: () => client.call(method.getMany, { namespace, keys: ["a", "b", "c"] }),
    set: () => client.put(namespace, key, "v", { tags: ["a", "b"] }),
    setIfAbsent: () => client.put(namespace, "absent", "v", { ifAbsent: true }),
    setMany: () => client.call(method.setMany, { namespace, items: ["x", "y", "x"].map((it) => ({ key: it, value })) }),
    delete: () => client.call(method.delete, { namespace, key: "d" }),
    deleteMany: () => client.call(method.deleteMany, { namespace, keys: ["e", "f"] }),
    exists: () => client.call(method.exists, { namespace, key: "g" }),
    touch: () => client.call(method.touch, { namespace, key: "h" }),
    increment: () => client.call(method.increment, { namespace, key: "n", requestId: "r" }),
    compareAndSet: () => client.call(method.compareAndSet, { namespace, key: "cas", value, requestId: "r" }),
    invalidateTags: () => client.call(method.invalidateTags, { namespace, tags: ["a", "never"] }),
    listKeys: () => client.call(method.listKeys, { namespace }),
    warm: () => client.call(method.warm, { namespace, patterns: ["k", "t*"], wait: true }),
  };
}

it.each(kinds)("every RPC is answered within one command timeout when $name freezes", async ({ start }) => {
  await using parts = new AsyncDisposableStack();
  const { url, nodes } = await start();
  for (const node of nodes) parts.use(node);
  const server = parts.use(
    await startHoldfast({
      REDIS_URL: url,
      DATABASE_URL: await freshDatabase(),
      HOLDFAST_CONFIG: durableConfig(parts),
      REDIS_COMMAND_TIMEOUT: `${TIMEOUT_MS}ms`,
      CIRCUIT_BREAKER_FAILURE_THRESHOLD: "10000",
    }),
  );
  using client = createCacheClient(server.grpcAddress, { deadlineMs: 30_000 });
  const namespaces = ["default", "durable"];
  for (const namespace of namespaces) {
    const used = async () => !(await client.put(namespace, "tagged", "v", { tags: ["a", "b"] })).degraded;
    await until(used, { what: "Redis to be used" });
  }
  for (const node of nodes) node.pause();
  const calls = namespaces.flatMap((namespace) =>
    Object.entries(everyCall(client, namespace)).map(async ([name, call]) => {
      const { ms } = await call().catch((error: unknown) => {
        if (error instanceof CallFailed) return { ms: `${error.message}` };
        throw error;
      });
      return { name: `${namespace} ${name}`, ms };
    }),
  );
  const answers = await Promise.all(calls);
  for (const node of nodes) node.resume();
  console.log(answers.map(({ name, ms }) => `${name} ${typeof ms === "number" ? Math.round(ms) : ms}`).join(", "));
  const late = answers.filter(({ ms }) => typeof ms !== "number" || ms > TIMEOUT_MS + SLACK_MS);
  expect(late).toEqual([]);
});
