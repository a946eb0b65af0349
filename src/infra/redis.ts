import { createClusterRoute } from "./redis-cluster.ts";
import type { RedisContact } from "./redis-contact.ts";
import { redisUnavailable } from "./redis-failure.ts";
import type { RedisArgument } from "./redis-link.ts";
import { createSingleRoute, linkOptions, type OnConnected, type RedisRoute } from "./redis-route.ts";
import { type RedisScript, runScript } from "./redis-script.ts";
import { createSentinelRoute } from "./redis-sentinel.ts";
import { createSubscriber, type RedisSubscriber, type SubscriberHandlers } from "./redis-subscriber.ts";

export { RedisReplyError } from "./redis-failure.ts";
export type { RedisArgument } from "./redis-link.ts";
export { defineScript, type RedisScript } from "./redis-script.ts";
export type { RedisSubscriber, SubscriberHandlers } from "./redis-subscriber.ts";
export { parseRedisUrl } from "./redis-url.ts";

export interface RedisNode {
  readonly host: string;
  readonly port: number;
}

export interface RedisTls {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly servername?: string;
  readonly rejectUnauthorized?: boolean;
}

export interface RedisOptions {
  readonly mode: "single" | "sentinel" | "cluster";
  /** The server; or the Sentinels; or some nodes of the cluster, from which the others are learnt. */
  readonly nodes: readonly RedisNode[];
  /** How the Sentinels call the primary. */
  readonly sentinelName?: string;
  readonly username?: string;
  readonly password?: string;
  readonly sentinelPassword?: string;
  /** Default: 0. A cluster has no other. */
  readonly db?: number;
  readonly tls?: RedisTls;
  /** No command waits longer than this, even on a Redis that is frozen. */
  readonly commandTimeoutMs: number;
  /** How long an attempt to connect may take, greeting included, before the next one. */
  readonly connectTimeoutMs: number;
  /** Is told when servers are reached and lost. */
  readonly contact?: RedisContact;
}

export interface RedisInfo {
  readonly version: string;
  readonly connectedClients: number;
  readonly usedMemoryBytes: number;
  /** 0: unlimited. */
  readonly maxMemoryBytes: number;
  readonly uptimeSeconds: number;
  /** Changes when the server restarts or another takes its place. */
  readonly runId: string;
}

/**
 * Redis as the capabilities see it. It connects on first use and again for ever by itself. While it is away every call rejects
 * at once with UnavailableError (reason REDIS_UNAVAILABLE); a refused command rejects with RedisReplyError. Nothing is ever
 * queued for later or sent twice: a command that was cut off may or may not have run.
 */
export interface Redis {
  readonly mode: RedisOptions["mode"];
  /** Whether commands go through now. In a cluster: whether every primary is reached. */
  readonly connected: boolean;
  /**
   * The run id of the server that commands on this key go to now: another one after a restart, which may have lost or brought
   * back data. Undefined while that server is not reached; "" when it does not say.
   */
  lifeOf(key: string): string | undefined;
  /** Starts connecting without waiting for the first command. */
  connect(): void;
  /** The values in the order of the keys. One MGET; in a cluster one per slot, all in flight at once. */
  getBuffers(keys: readonly string[]): Promise<(Buffer | null)[]>;
  run(script: RedisScript, keys: readonly string[], args: readonly RedisArgument[]): Promise<unknown>;
  /** Any command that answers at once; strings in its reply come as strings. In a cluster it goes where its first key lives. */
  command(name: string, ...args: readonly RedisArgument[]): Promise<unknown>;
  /** The same, with strings in the reply as Buffers. */
  commandBuffers(name: string, ...args: readonly RedisArgument[]): Promise<unknown>;
  /**
   * One step through the keys. Begins and ends with cursor "0"; any other one is opaque. In a cluster it walks all primaries.
   * As with SCAN, a key may come twice, and one moved by a resharding or a failover meanwhile may be missed.
   */
  scan(pattern: string, cursor: string, count: number): Promise<{ cursor: string; keys: string[] }>;
  /** Messages on one channel arrive in this order. Returns how many subscribers of the same server got it. */
  publish(channel: string, message: string): Promise<number>;
  createSubscriber(handlers: SubscriberHandlers): RedisSubscriber;
  /**
   * The same Redis on connections of its own whose commands may wait for this long: for blocking reads (XREADGROUP BLOCK), which
   * would hold up everyone else here. To be closed by who asked for it.
   */
  withCommandTimeout(commandTimeoutMs: number): Redis;
  info(): Promise<RedisInfo>;
  /** Milliseconds until the answer came. */
  ping(): Promise<number>;
  /** Called after each connect from now on with the server's run id; in a cluster for each primary. Returns the removal. */
  onConnected(listener: (runId: string) => void): () => void;
  /** Waits for what is under way, up to the command timeout. */
  close(): Promise<void>;
}

const ROUTES: Readonly<Record<RedisOptions["mode"], (options: RedisOptions, onConnected: OnConnected) => RedisRoute>> =
  {
    single: createSingleRoute,
    sentinel: createSentinelRoute,
    cluster: createClusterRoute,
  };

export function createRedis(options: RedisOptions): Redis {
  if (options.nodes.length === 0) throw new TypeError("at least one Redis node is required");
  const listeners = new Set<(runId: string) => void>();
  const onConnected = (runId: string) => {
    for (const listener of listeners) {
      try {
        listener(runId);
      } catch (error) {
        // A defect of the listener must cost neither the connection nor the process.
        process.emitWarning(error instanceof Error ? error : String(error));
      }
    }
  };
  const route = ROUTES[options.mode](options, onConnected);

  return {
    mode: options.mode,
    get connected() {
      return route.connected;
    },
    lifeOf: route.lifeOf,
    connect: route.connect,
    getBuffers: route.getBuffers,
    run: (script, keys, args) => runScript(route.send, script, keys, args),
    command: (name, ...args) => route.send({ name, args, buffers: false }),
    commandBuffers: (name, ...args) => route.send({ name, args, buffers: true }),
    scan: route.scan,
    publish: async (channel, message) =>
      Number(await route.send({ name: "publish", args: [channel, message], buffers: false, near: channel })),
    createSubscriber: (handlers) => createSubscriber(linkOptions(options), route.subscriberTarget, handlers),
    withCommandTimeout: (commandTimeoutMs) => createRedis({ ...options, commandTimeoutMs }),
    info: async () => summarize(await route.info()),
    ping: async () => {
      const start = performance.now();
      await route.send({ name: "ping", args: [], buffers: false });
      return performance.now() - start;
    },
    onConnected: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: route.close,
  };
}

function summarize(servers: readonly ReadonlyMap<string, string>[]): RedisInfo {
  const [first] = servers;
  if (first === undefined) throw redisUnavailable("no server answered");
  const numbers = (field: string) => servers.map((server) => Number(server.get(field) ?? 0));
  const sum = (field: string) => numbers(field).reduce((total, value) => total + value, 0);
  return {
    version: first.get("redis_version") ?? "",
    connectedClients: sum("connected_clients"),
    usedMemoryBytes: sum("used_memory"),
    maxMemoryBytes: sum("maxmemory"),
    uptimeSeconds: Math.min(...numbers("uptime_in_seconds")),
    runId: servers.map((server) => server.get("run_id") ?? "").join(","),
  };
}
