import { onTestFinished } from "vitest";
import { createRedis, parseRedisUrl, type Redis, type RedisOptions } from "../../src/infra/redis.ts";

/** A client that is closed when the test ends. */
export function open(url: string, overrides: Partial<RedisOptions> = {}): Redis {
  const parsed = parseRedisUrl(url);
  if (typeof parsed === "string") throw new Error(parsed);
  const redis = createRedis({
    mode: "single",
    nodes: [],
    commandTimeoutMs: 500,
    connectTimeoutMs: 1_000,
    ...parsed,
    ...overrides,
  });
  onTestFinished(() => redis.close());
  return redis;
}
