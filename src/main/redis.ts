import type { RedisSettings } from "../config.ts";
import type { Log } from "../infra/log.ts";
import type { Redis } from "../infra/redis.ts";
import { isNamed, readCertificate, readKey } from "./tls.ts";

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
  const ca = { setting: "REDIS_TLS_CA", file: caFile };
  const cert = { setting: "REDIS_TLS_CERT", file: certFile };
  const key = { setting: "REDIS_TLS_KEY", file: keyFile };
  return {
    ...(isNamed(ca) && { ca: readCertificate(ca) }),
    ...(isNamed(cert) && isNamed(key) && { cert: readCertificate(cert), key: readKey(key, cert) }),
  };
}
