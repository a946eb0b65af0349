import { Redis } from "ioredis";
import { inject } from "vitest";
import { createDatabase } from "./postgres-server.ts";
import { redisDatabases } from "./redis-databases.ts";

/** A new empty Postgres database on the server that all tests of this run share. */
export function freshDatabase(): Promise<string> {
  return createDatabase(inject("postgresUrl"));
}

/**
 * An empty numbered database on the Redis that all tests of this run share. Keys are its own; channels of PUBLISH are the
 * server's, so a test that counts messages needs channel names of its own, or `startRedis()`.
 */
export async function freshRedis(): Promise<string> {
  const url = inject("redisUrl");
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null });
  try {
    await redis.connect();
    // Counted on the server, because test files run in several processes.
    const number = 1 + ((await redis.incr("fresh")) % (redisDatabases - 1));
    await redis.select(number);
    await redis.flushdb();
    return `${url}/${number}`;
  } finally {
    redis.disconnect();
  }
}
