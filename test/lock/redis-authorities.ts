import { join } from "node:path";
import { decodePayload, encodePayload } from "../../src/infra/backplane-frame.ts";
import type { Breaker } from "../../src/infra/breaker.ts";
import { createBreaker } from "../../src/infra/circuit-breaker.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { createRedis, parseRedisUrl, type Redis } from "../../src/infra/redis.ts";
import { createSqlClock } from "../../src/infra/sql-clock.ts";
import type { Head, Heads } from "../../src/lock/authority/head.ts";
import { createRedisAuthority } from "../../src/lock/authority/redis-authority.ts";
import { epochFloorOf } from "../../src/lock/authority/redis-lives.ts";
import { createSqlHeads } from "../../src/lock/authority/sql-heads.ts";
import { freshRedis } from "../support/fresh.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { openTestDatabase } from "../support/test-database.ts";
import type { OpenAuthority } from "./authorities.ts";

export interface OpenRedisAuthority extends OpenAuthority {
  readonly redis: Redis;
  readonly breaker: Breaker;
}

export interface OpenRedisAuthorities extends AsyncDisposable {
  readonly instances: readonly [OpenRedisAuthority, ...OpenRedisAuthority[]];
  readonly heads: Heads;
  /** One more instance, which may come to Redis by another address. */
  open(url?: RedisAuthoritiesOptions["url"]): Promise<OpenRedisAuthority>;
}

export interface RedisAuthoritiesOptions {
  readonly count?: number;
  /**
   * Default: an empty database on the Redis that the tests share. Of several servers, the primary is the one that
   * decides.
   */
  readonly url?: string | readonly string[];
  /** Default: as long as nobody hears of another epoch, that in which Redis began to decide. */
  readonly epochFloor?: (head: Head, mode: Redis["mode"]) => () => number;
  readonly nowMs?: () => number;
  readonly commandTimeoutMs?: number;
  /** Stands between the authority and its Redis, with a bug planted in it. */
  readonly spoil?: (redis: Redis) => Redis;
  /** Stands between the authority and what knows the epochs. */
  readonly spoilHeads?: (heads: Heads) => Heads;
}

let opened = 0;

/** Instances whose locks one Redis decides about; the epochs are in SQLite. */
export async function openRedisAuthorities(options: RedisAuthoritiesOptions = {}): Promise<OpenRedisAuthorities> {
  const { count = 1, commandTimeoutMs = 2_000, nowMs, spoil = (redis) => redis } = options;
  await using parts = new AsyncDisposableStack();
  const directory = parts.adopt(scratchDirectory("lock"), (it) => it.remove());
  const database = parts.adopt(openTestDatabase("sqlite", join(directory.path, "heads.db")), (it) => it.close());
  await migrate(database, migrations);
  const sqlHeads = createSqlHeads(database, createSqlClock("sqlite", systemClock));
  const heads = options.spoilHeads?.(sqlHeads) ?? sqlHeads;
  const head = await heads.become("redis");
  const shared = options.url ?? (await freshRedis());
  // Channels are those of the whole server.
  const channel = `test-lock-${process.pid}-${opened++}`;
  const floor = options.epochFloor ?? ((known: Head, mode: Redis["mode"]) => () => epochFloorOf(known, mode));
  const open = (url = shared): Promise<OpenRedisAuthority> =>
    openRedisAuthority(parts, {
      ...{ url, channel, heads, commandTimeoutMs, spoil },
      ...(nowMs && { nowMs }),
      epochFloor: (mode) => floor(head, mode),
    });
  const instances: [OpenRedisAuthority, ...OpenRedisAuthority[]] = [await open()];
  while (instances.length < count) instances.push(await open());
  const kept = parts.move();
  return { instances, heads, open, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

export interface RedisAuthorityParts extends Pick<RedisAuthoritiesOptions, "nowMs" | "spoil"> {
  readonly url: string | readonly string[];
  /** On which freed locks are announced. */
  readonly channel: string;
  readonly heads: Pick<Heads, "nextEpoch">;
  readonly commandTimeoutMs: number;
  readonly epochFloor: (mode: Redis["mode"]) => () => number;
}

/** What one instance has of it. */
export async function openRedisAuthority(
  parts: AsyncDisposableStack,
  options: RedisAuthorityParts,
): Promise<OpenRedisAuthority> {
  const { url, channel, heads, commandTimeoutMs, epochFloor, nowMs, spoil = (redis) => redis } = options;
  const log = createLog({ level: "silent" });
  const redis = parts.adopt(connect(url, commandTimeoutMs), (it) => it.close());
  const probe = async () => void (await redis.ping());
  const settings = { failureThreshold: 5, resetTimeoutMs: 200, halfOpenMaxCalls: 1 };
  const breaker = parts.adopt(createBreaker({ ...settings, probe, clock: systemClock, log }), (it) => it.close());
  const announced: string[] = [];
  const sender = `i${opened++}`;
  const { promise: listening, resolve } = Promise.withResolvers<void>();
  const subscriber = redis.createSubscriber({
    onUp: resolve,
    onMessage: (_, payload) => {
      const received = decodePayload(payload);
      if (received?.sender === sender) announced.push(received.message);
    },
  });
  parts.defer(() => subscriber.close());
  subscriber.subscribe(channel);
  await listening;
  const authority = createRedisAuthority({
    ...{ redis: spoil(redis), breaker, commandTimeoutMs, heads, clock: systemClock, log },
    epochFloor: epochFloor(redis.mode),
    frame: (_, message) => ({ channel, payload: encodePayload(sender, undefined, message) }),
    ...(nowMs && { nowMs }),
  });
  parts.defer(() => authority.close());
  return { authority, announced, redis, breaker };
}

function connect(urls: string | readonly string[], commandTimeoutMs: number): Redis {
  const all = [urls].flat().map((url) => {
    const parsed = parseRedisUrl(url);
    if (typeof parsed === "string") throw new Error(parsed);
    return parsed;
  });
  const nodes = all.flatMap((one) => one.nodes ?? []);
  return createRedis({ mode: "single", ...all[0], nodes, commandTimeoutMs, connectTimeoutMs: 2_000 });
}
