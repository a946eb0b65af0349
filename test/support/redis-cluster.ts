import { Redis } from "ioredis";
import { onFreePort } from "./free-port.ts";
import { type RedisServer, startRedis } from "./redis-server.ts";
import { until } from "./until.ts";

const slots = 16_384;

export interface RedisCluster extends AsyncDisposable {
  readonly urls: readonly string[];
  readonly nodes: readonly RedisServer[];
  stop(): Promise<void>;
}

/** A Redis Cluster of three masters with all slots assigned, in state ok on each of them. */
export async function startRedisCluster(): Promise<RedisCluster> {
  const nodes: ClusterNode[] = [];
  const stop = async () => {
    await Promise.all(nodes.map((node) => node.server.stop()));
  };
  try {
    for (let index = 0; index < 3; index++) nodes.push(await startNode());
    await form(nodes);
  } catch (error) {
    await stop();
    throw error;
  }
  const servers = nodes.map((node) => node.server);
  return { urls: servers.map((server) => server.url), nodes: servers, stop, [Symbol.asyncDispose]: stop };
}

interface ClusterNode {
  readonly server: RedisServer;
  readonly busPort: number;
}

function startNode(): Promise<ClusterNode> {
  // The bus port would be the port + 10000, which nobody has looked at: give it one that is free too.
  return onFreePort(async (busPort) => {
    const settings = { "cluster-enabled": "yes", "cluster-port": String(busPort), "cluster-node-timeout": "2000" };
    const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
    return { server: await startRedis({ args }), busPort };
  });
}

async function form(nodes: readonly ClusterNode[]): Promise<void> {
  const clients = nodes.map(({ server }) => new Redis(server.url, { lazyConnect: true, retryStrategy: () => null }));
  try {
    await Promise.all(clients.map((client) => client.connect()));
    const share = Math.ceil(slots / clients.length);
    for (const [index, client] of clients.entries()) {
      await client.call("CLUSTER", "SET-CONFIG-EPOCH", index + 1);
      const last = Math.min((index + 1) * share, slots) - 1;
      await client.call("CLUSTER", "ADDSLOTSRANGE", index * share, last);
    }
    for (const { server, busPort } of nodes.slice(1)) {
      await clients[0]?.call("CLUSTER", "MEET", "127.0.0.1", server.port, busPort);
    }
    for (const client of clients) {
      const ready = async () => {
        const info = String(await client.call("CLUSTER", "INFO"));
        return info.includes("cluster_state:ok") && info.includes(`cluster_known_nodes:${nodes.length}`);
      };
      await until(ready, { what: "the Redis Cluster to be ok" });
    }
  } finally {
    for (const client of clients) client.disconnect();
  }
}
