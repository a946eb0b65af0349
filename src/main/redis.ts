import { readFileSync } from "node:fs";
import type { RedisSettings } from "../config.ts";
import type { Log } from "../infra/log.ts";
import type { Redis } from "../infra/redis.ts";

/** Makes the client and lets it connect in the background. */
export async function startRedis(settings: RedisSettings, log: Log): Promise<Redis> {
  const { target, tls, commandTimeoutMs, connectTimeoutMs } = settings;
  const { createContactLog } = await import("../infra/redis-contact.ts");
  const { createRedis } = await import("../infra/redis.ts");
  const redis = createRedis({
    ...target,
    commandTimeoutMs,
    connectTimeoutMs,
    contact: createContactLog(log.child({ component: "redis" })),
    ...(tls && { tls: readTls(tls) }),
  });
  redis.connect();
  return redis;
}

function readTls({ caFile, certFile, keyFile }: NonNullable<RedisSettings["tls"]>) {
  return {
    ...(caFile !== undefined && { ca: readFileSync(caFile, "utf8") }),
    ...(certFile !== undefined && { cert: readFileSync(certFile, "utf8") }),
    ...(keyFile !== undefined && { key: readFileSync(keyFile, "utf8") }),
  };
}
