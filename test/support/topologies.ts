import { freshDatabase, freshRedis } from "./fresh.ts";
import { startRedisCluster } from "./redis-cluster.ts";
import { startRedisSentinel } from "./redis-sentinel.ts";

/** A way to run the server. */
export interface TopologyCase {
  readonly name: string;
  /** Whether instances share a Redis. */
  readonly redis: boolean;
  /** How many instances it makes sense to run. */
  readonly instances: number;
  /** The settings; what it starts is taken apart with `parts`. */
  start(parts: AsyncDisposableStack): Promise<Record<string, string>>;
}

/** The four topologies, and the kinds of Redis. */
export const topologyCases: readonly TopologyCase[] = [
  { name: "embedded", redis: false, instances: 1, start: async () => ({}) },
  { name: "single", redis: true, instances: 1, start: async () => ({ REDIS_URL: await freshRedis() }) },
  {
    name: "cluster",
    redis: true,
    instances: 2,
    start: async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() }),
  },
  { name: "sql-only", redis: false, instances: 2, start: async () => ({ DATABASE_URL: await freshDatabase() }) },
  {
    name: "single, on a Redis Cluster of three masters",
    redis: true,
    instances: 2,
    start: async (parts) => {
      const { nodes } = parts.use(await startRedisCluster());
      return { REDIS_URL: `redis-cluster://${nodes.map(({ port }) => `127.0.0.1:${port}`).join(",")}` };
    },
  },
  {
    name: "single, on a Redis that Sentinels watch",
    redis: true,
    instances: 2,
    start: async (parts) => {
      const { sentinels, name } = parts.use(await startRedisSentinel());
      const hosts = sentinels.map(({ host, port }) => `${host}:${port}`).join(",");
      return { REDIS_URL: `redis-sentinel://${hosts}/${name}` };
    },
  },
];
