import { setTimeout as delay } from "node:timers/promises";
import { UnavailableError } from "../../infra/failure.ts";
import { type Redis, RedisReplyError } from "../../infra/redis.ts";
import { rawBytes } from "./conversation-item.ts";
import { parseExactly, Unfit } from "./conversation-json.ts";
import {
  type ConversationSource,
  checkSize,
  type Lifetime,
  type Loaded,
  mayCollide,
  namedBy,
  type Place,
  type Prefix,
  utf8Of,
} from "./conversation-source.ts";
import { connectToRedis, type RedisAccess, reachRedis } from "./redis-access.ts";
import { SourceError } from "./source.ts";

export interface ConversationRedisOptions extends RedisAccess {
  readonly prefixes: readonly Prefix[];
  /** Aborted when nobody waits any more for a Redis that is away. */
  readonly signal?: AbortSignal | undefined;
}

const PAGE = 500;
/** How long a Redis may be away in the middle: a failover takes a while. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 200;

/** The documents under the keys of a Redis. They are only read. */
export async function openConversationRedis({
  prefixes,
  signal,
  ...access
}: ConversationRedisOptions): Promise<ConversationSource> {
  const redis = await connectToRedis(access);
  const reader = { redis, prefixes, patiently: patienceUntil(signal) };
  try {
    await reachRedis(redis);
    const wanted = prefixes.map(({ prefix }) => `${prefix}*`).join(" and ");
    const found = await anyKey(reader);
    return {
      name: `the keys ${wanted} in Redis`,
      remarks: found === undefined ? [await nothingFound(redis, wanted)] : [],
      total: undefined,
      mayRepeat: mayCollide(prefixes),
      isAlive: true,
      places: () => placesIn(reader),
      close: () => redis.close(),
    };
  } catch (error) {
    await redis.close();
    throw error;
  }
}

interface Reader {
  readonly redis: Redis;
  readonly prefixes: readonly Prefix[];
  /** Calls until Redis answers, and gives up when it was away for long. */
  patiently<T>(call: () => Promise<T>): Promise<T>;
}

async function anyKey(reader: Reader): Promise<string | undefined> {
  for await (const key of keysOf(reader)) return key;
  return undefined;
}

async function nothingFound(redis: Redis, wanted: string): Promise<string> {
  const { keys } = await redis.scan("*", "0", 10);
  const others = keys.length === 0 ? "it has no keys at all" : `it has keys such as ${keys.slice(0, 5).join(", ")}`;
  return `there is no key ${wanted} in this Redis: ${others}. Is it the right one, with the right database and --collection?`;
}

async function* placesIn(reader: Reader): AsyncGenerator<Place> {
  for await (const key of keysOf(reader)) yield placeOf(key, reader);
}

/**
 * Each once, though a scan may name one twice. A server that was away may go through its keys in another order than before, so that some
 * would be missed: it is scanned again.
 */
async function* keysOf(reader: Reader): AsyncGenerator<string> {
  const { redis, prefixes } = reader;
  const seen = new Set<string>();
  let connections = 0;
  const removeListener = redis.onConnected(() => void connections++);
  try {
    for (const { prefix } of prefixes) {
      for (let before = -1; before !== connections; ) {
        before = connections;
        for await (const key of scanOf(prefix, reader)) {
          if (seen.has(key)) continue;
          seen.add(key);
          yield key;
        }
      }
    }
  } finally {
    removeListener();
  }
}

async function* scanOf(prefix: string, { redis, patiently }: Reader): AsyncGenerator<string> {
  const pattern = `${prefix.replace(/[*?[\]\\^-]/g, "\\$&")}*`;
  let cursor = "0";
  do {
    const step = await patiently(() => redis.scan(pattern, cursor, PAGE));
    yield* step.keys;
    cursor = step.cursor;
  } while (cursor !== "0");
}

function placeOf(key: string, reader: Reader): Place {
  const { redis, prefixes } = reader;
  let raw: { readonly value: Buffer; readonly lifetime: Lifetime } | undefined;
  return {
    where: key,
    async bytes() {
      if (key.includes("\ufffd")) throw new Unfit("KEY_NOT_TEXT", "has a key that is not UTF-8 text");
      return checkSize(Number(await ofString(key, reader, () => redis.command("STRLEN", key))));
    },
    async load(): Promise<Loaded | undefined> {
      const named = namedBy(key, prefixes);
      const readAt = performance.now();
      const [value, ttl] = await ofString(key, reader, () =>
        Promise.all([redis.commandBuffers("GET", key), redis.command("PTTL", key)]),
      );
      if (!(value instanceof Buffer) || ttl === -2 || named === undefined) return undefined;
      const lifetime = ttl === -1 ? "never" : { endsAtMs: readAt + Number(ttl) };
      raw = { value, lifetime };
      return { ...named, document: parseExactly(utf8Of(value)), lifetime };
    },
    raw: () => ({ key, ...(raw && { ...rawBytes(raw.value), ttl: secondsOf(raw.lifetime) }) }),
  };
}

/** As the commands TTL and EXPIRE have it. */
function secondsOf(lifetime: Lifetime): number {
  return typeof lifetime === "object" ? Math.max(0, Math.ceil((lifetime.endsAtMs - performance.now()) / 1000)) : -1;
}

/** A command for strings. Throws Unfit where the key holds something else. */
async function ofString<T>(key: string, { redis, patiently }: Reader, command: () => Promise<T>): Promise<T> {
  try {
    return await patiently(command);
  } catch (error) {
    if (!(error instanceof RedisReplyError) || error.code !== "WRONGTYPE") throw error;
    const type = String(await patiently(() => redis.command("TYPE", key)));
    throw new Unfit("NOT_A_STRING", `holds a ${type}; wanted a string with a JSON object in it`);
  }
}

function patienceUntil(signal: AbortSignal | undefined): Reader["patiently"] {
  return async (call) => {
    const giveUpAt = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        return await call();
      } catch (error) {
        if (!(error instanceof UnavailableError)) throw error;
        if (signal?.aborted || performance.now() > giveUpAt) {
          throw new SourceError(`Redis does not answer any more: ${error.message}`, error);
        }
        await delay(RETRY_MS);
      }
    }
  };
}
