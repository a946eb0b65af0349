import { join } from "node:path";
import { existingFile, flag, integer } from "./kind.ts";
import { type Reader, setting } from "./reader.ts";
import { day, duration, hour, minute, second } from "./units.ts";
import { postgresUrl, type RedisAddress, type RedisTarget, redisUrl } from "./url.ts";

export interface RedisSettings {
  readonly target: RedisTarget;
  readonly commandTimeoutMs: number;
  readonly connectTimeoutMs: number;
  /** Undefined: no TLS. Without files: TLS with the authorities that the system trusts. */
  readonly tls: { readonly caFile?: string; readonly certFile?: string; readonly keyFile?: string } | undefined;
}

export type DatabaseSettings =
  | { readonly kind: "sqlite"; readonly file: string }
  | {
      readonly kind: "postgres";
      readonly url: string;
      readonly poolSize: number;
      readonly connectTimeoutMs: number;
      readonly statementTimeoutMs: number;
    };

export interface BreakerSettings {
  readonly failureThreshold: number;
  readonly resetTimeoutMs: number;
  readonly halfOpenMaxCalls: number;
}

const certificate = existingFile("the path of a PEM file that can be read");

export function readRedis(reader: Reader) {
  const timeout = duration({ bare: "ms", min: 1, max: minute });
  const ca = setting("REDIS_TLS_CA", "redis.tls.ca", certificate);
  const cert = setting("REDIS_TLS_CERT", "redis.tls.cert", certificate);
  const key = setting("REDIS_TLS_KEY", "redis.tls.key", certificate);
  const address = reader.optional(setting("REDIS_URL", "redis.url", redisUrl()));
  const disabled = reader.required(setting("DISABLE_REDIS", "redis.disabled", flag()), false);
  const commandTimeoutMs = reader.required(setting("REDIS_COMMAND_TIMEOUT", "redis.command_timeout", timeout), 250);
  const connectTimeoutMs = reader.required(
    setting("REDIS_CONNECT_TIMEOUT", "redis.connect_timeout", timeout),
    2 * second,
  );
  const [caFile, certFile, keyFile] = [reader.optional(ca), reader.optional(cert), reader.optional(key)];
  const files = { ...(caFile && { caFile }), ...(certFile && { certFile }), ...(keyFile && { keyFile }) };
  const settingsOf = ({ target, tls }: RedisAddress): RedisSettings => ({
    ...{ target, commandTimeoutMs, connectTimeoutMs },
    tls: tls ? files : undefined,
  });
  const settings = address === undefined || disabled ? undefined : settingsOf(address);
  const given = { redisCa: reader.has(ca), redisCert: reader.has(cert), redisKey: reader.has(key) };
  return { settings, given, settingsOf };
}

export function readDatabase(reader: Reader, dataDir: string): DatabaseSettings {
  const url = reader.optional(setting("DATABASE_URL", "database.url", postgresUrl()));
  const poolSize = reader.required(
    setting("DATABASE_POOL_SIZE", "database.pool_size", integer({ min: 1, max: 1000 })),
    10,
  );
  const connectTimeoutMs = reader.required(
    setting("DATABASE_CONNECT_TIMEOUT", "database.connect_timeout", duration({ bare: "ms", min: 10, max: hour })),
    2 * second,
  );
  const statementTimeoutMs = reader.required(
    setting("DATABASE_STATEMENT_TIMEOUT", "database.statement_timeout", duration({ bare: "ms", min: 10, max: hour })),
    5 * second,
  );
  if (url === undefined) return { kind: "sqlite", file: join(dataDir, "holdfast.db") };
  return { kind: "postgres", url, poolSize, connectTimeoutMs, statementTimeoutMs };
}

export function readBreaker(reader: Reader): BreakerSettings {
  const count = integer({ min: 1, max: 10_000 });
  const reset = duration({ bare: "ms", min: 10, max: day });
  return {
    failureThreshold: reader.required(
      setting("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "circuit_breaker.failure_threshold", count),
      5,
    ),
    resetTimeoutMs: reader.required(
      setting("CIRCUIT_BREAKER_RESET_TIMEOUT", "circuit_breaker.reset_timeout", reset),
      30 * second,
    ),
    halfOpenMaxCalls: reader.required(
      setting("CIRCUIT_BREAKER_HALF_OPEN_MAX_CALLS", "circuit_breaker.half_open_max_calls", count),
      3,
    ),
  };
}
