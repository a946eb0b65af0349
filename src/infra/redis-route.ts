import type { RedisOptions as ClientOptions } from "ioredis";
import type { RedisOptions } from "./redis.ts";
import { redactor } from "./redis-failure.ts";
import {
  createLink,
  type LinkOptions,
  parseInfo,
  type RedisArgument,
  type RedisLink,
  type RedisRequest,
} from "./redis-link.ts";

/** Which connection a command goes to: what differs between one server, a primary behind Sentinels, and a cluster. */
export interface RedisRoute {
  readonly connected: boolean;
  lifeOf(key: string): string | undefined;
  connect(): void;
  send(request: RedisRequest): Promise<unknown>;
  getBuffers(keys: readonly string[]): Promise<(Buffer | null)[]>;
  scan(pattern: string, cursor: string, count: number): Promise<{ cursor: string; keys: string[] }>;
  /** One server's INFO; of a cluster, the sum where a sum makes sense. */
  info(): Promise<ReadonlyMap<string, string>[]>;
  /** Where a connection for pub/sub may go. */
  subscriberTarget(): ClientOptions;
  close(): Promise<void>;
}

export type OnConnected = (runId: string) => void;

/** What every connection of these options shares. */
export function linkOptions(options: RedisOptions): Omit<LinkOptions, "target"> {
  return {
    commandTimeoutMs: options.commandTimeoutMs,
    connectTimeoutMs: options.connectTimeoutMs,
    redact: redactor([options.password, options.sentinelPassword]),
    acceptsReplica: false,
    keepAliveMs: 5_000,
  };
}

/** Names and secrets, without an address. */
export function credentials(options: RedisOptions): ClientOptions {
  return {
    ...(options.username === undefined ? {} : { username: options.username }),
    ...(options.password === undefined ? {} : { password: options.password }),
    ...(options.tls === undefined ? {} : { tls: { ...options.tls } }),
  };
}

export function createSingleRoute(options: RedisOptions, onConnected: OnConnected): RedisRoute {
  const nodes = rotation(options.nodes);
  const target = () => ({ ...credentials(options), ...nodes(), db: options.db ?? 0 });
  const server = options.nodes.map(({ host, port }) => `${host}:${port}`).join(", ");
  const onUp: LinkOptions["onUp"] = (_, info) => {
    options.contact?.made(server);
    onConnected(info.get("run_id") ?? "");
  };
  const onFailure: LinkOptions["onFailure"] = (error) => options.contact?.lost(server, error);
  return routeOf(createLink({ ...linkOptions(options), target, onUp, onFailure }), target);
}

/** Everything goes over one connection. */
export function routeOf(link: RedisLink, subscriberTarget: () => ClientOptions): RedisRoute {
  return {
    get connected() {
      return link.connected;
    },
    lifeOf: () => (link.connected ? link.runId : undefined),
    connect: link.connect,
    send: (request) => link.send(request),
    getBuffers: (keys) => mget(link, keys),
    scan: (pattern, cursor, count) => scanOne(link, pattern, cursor, count),
    info: async () => [await infoOf(link)],
    subscriberTarget,
    close: link.close,
  };
}

/** The next of several addresses at each call. */
export function rotation<T>(items: readonly T[]): () => T {
  let turn = 0;
  return () => {
    const item = items[turn++ % items.length];
    if (item === undefined) throw new TypeError("at least one Redis node is required");
    return item;
  };
}

export async function mget(link: Pick<RedisLink, "send">, keys: readonly string[]): Promise<(Buffer | null)[]> {
  if (keys.length === 0) return [];
  const values = await link.send({ name: "mget", args: keys, buffers: true, divisible: keys.length > 1 });
  if (!Array.isArray(values)) throw new TypeError("MGET did not answer with a list");
  return values;
}

export async function scanOne(
  link: RedisLink,
  pattern: string,
  cursor: string,
  count: number,
): Promise<{ cursor: string; keys: string[] }> {
  const args: RedisArgument[] = [cursor, "MATCH", pattern, "COUNT", count];
  const reply = await link.send({ name: "scan", args, buffers: false });
  if (!Array.isArray(reply) || !Array.isArray(reply[1]))
    throw new TypeError("SCAN did not answer with a cursor and keys");
  return { cursor: String(reply[0]), keys: reply[1].map(String) };
}

export async function infoOf(link: RedisLink): Promise<ReadonlyMap<string, string>> {
  return parseInfo(String(await link.send({ name: "info", args: [], buffers: false })));
}
