import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { Environment } from "../../config.ts";
import { loadConfig } from "../../config.ts";
import { createRedis, type Redis } from "../../infra/redis.ts";
import { UsageError } from "../usage.ts";
import { SourceError } from "./source.ts";

export interface RedisAccess {
  /** Undefined: the Redis that the server's own settings name. */
  readonly redisUrl: string | undefined;
  readonly environment: Environment;
}

/** A page of large entries takes a while. */
const COMMAND_TIMEOUT_MS = 15_000;
const REACH_MS = 10_000;

/** With the settings that the server would use, so that TLS, Sentinels and clusters need no options here. */
export async function connectToRedis({ redisUrl, environment }: RedisAccess): Promise<Redis> {
  const own = Object.entries(environment).filter(([name]) => name.startsWith("REDIS_") || name === "HOLDFAST_CONFIG");
  const { config } = await loadConfig({
    ...Object.fromEntries(own),
    ...(redisUrl !== undefined && { REDIS_URL: redisUrl }),
  });
  if (config.redis === undefined) throw new UsageError("which Redis? Give --redis-url or set REDIS_URL");
  const { target, tls, connectTimeoutMs } = config.redis;
  return createRedis({
    ...target,
    connectTimeoutMs,
    commandTimeoutMs: COMMAND_TIMEOUT_MS,
    ...(tls && {
      tls: {
        ...(tls.caFile !== undefined && { ca: readFileSync(tls.caFile, "utf8") }),
        ...(tls.certFile !== undefined && { cert: readFileSync(tls.certFile, "utf8") }),
        ...(tls.keyFile !== undefined && { key: readFileSync(tls.keyFile, "utf8") }),
      },
    }),
  });
}

/** Waits until it answers, and gives up after a while. */
export async function reachRedis(redis: Redis): Promise<void> {
  const giveUpAt = performance.now() + REACH_MS;
  for (;;) {
    try {
      await redis.ping();
      return;
    } catch (error) {
      if (performance.now() > giveUpAt) {
        throw new SourceError(
          `Redis does not answer: ${error instanceof Error ? error.message : String(error)}`,
          error,
        );
      }
      await delay(100);
    }
  }
}
