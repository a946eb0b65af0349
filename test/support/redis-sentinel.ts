import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Redis } from "ioredis";
import { findBinary } from "./binaries.ts";
import { type Child, startChild } from "./child.ts";
import { onFreePort } from "./free-port.ts";
import { type RedisServer, startRedis } from "./redis-server.ts";
import { scratchDirectory } from "./scratch.ts";
import { until } from "./until.ts";

const name = "holdfast";
const sentinelCount = 3;

export interface RedisSentinel extends AsyncDisposable {
  readonly sentinels: readonly { readonly host: string; readonly port: number }[];
  /** The name of the watched primary, as clients must ask for it. */
  readonly name: string;
  /** The one that was primary at the start; after a failover it is not. */
  readonly primary: RedisServer;
  readonly replica: RedisServer;
  stop(): Promise<void>;
}

interface Sentinel {
  readonly port: number;
  readonly child: Child;
}

/** A primary, a replica in sync with it, and three sentinels that know each other and fail over after one second. */
export async function startRedisSentinel(): Promise<RedisSentinel> {
  const directory = scratchDirectory("sentinel");
  const started: { stop(): Promise<void> }[] = [];
  const stop = async () => {
    // Sentinels first: they would begin a failover when the primary goes.
    for (const server of started.toReversed()) await server.stop();
    directory.remove();
  };
  try {
    const primary = await startRedis();
    started.push(primary);
    const replica = await startRedis({ args: ["--replicaof", "127.0.0.1", String(primary.port)] });
    started.push(replica);
    const sentinels: Sentinel[] = [];
    for (let index = 0; index < sentinelCount; index++) {
      const sentinel = await onFreePort((port) => startSentinel(directory.path, port, primary.port));
      sentinels.push(sentinel);
      started.push({ stop: () => sentinel.child.stop("SIGTERM") });
    }
    for (const sentinel of sentinels) await knowsAll(sentinel.port);
    return {
      sentinels: sentinels.map(({ port }) => ({ host: "127.0.0.1", port })),
      name,
      primary,
      replica,
      stop,
      [Symbol.asyncDispose]: stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startSentinel(directory: string, port: number, primaryPort: number): Promise<Sentinel> {
  const file = join(directory, `sentinel-${port}.conf`);
  // Not command line arguments: a sentinel rewrites its file with what it learns.
  const lines = [
    "bind 127.0.0.1",
    `port ${port}`,
    `dir ${directory}`,
    `sentinel monitor ${name} 127.0.0.1 ${primaryPort} 2`,
    `sentinel down-after-milliseconds ${name} 1000`,
    `sentinel failover-timeout ${name} 5000`,
    `sentinel parallel-syncs ${name} 1`,
  ];
  writeFileSync(file, `${lines.join("\n")}\n`);
  const child = await startChild({
    command: findBinary("redis-server"),
    args: [file, "--sentinel"],
    cwd: directory,
    isReady: (line) => line.includes(`+monitor master ${name}`),
  });
  return { port, child };
}

async function knowsAll(port: number): Promise<void> {
  const client = new Redis({ host: "127.0.0.1", port, lazyConnect: true, retryStrategy: () => null });
  try {
    await client.connect();
    const ready = async () => {
      const others = await client.call("SENTINEL", "SENTINELS", name);
      const replicas = await client.call("SENTINEL", "REPLICAS", name);
      const enough = Array.isArray(others) && others.length === sentinelCount - 1;
      // A replica that is not known as linked yet could not be chosen in a failover.
      return enough && Array.isArray(replicas) && replicas.length === 1 && JSON.stringify(replicas).includes('"ok"');
    };
    await until(ready, { what: `the sentinel on port ${port} to know the others and the replica` });
  } finally {
    client.disconnect();
  }
}
