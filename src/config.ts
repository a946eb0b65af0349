import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import type { NamespacePolicies } from "./cache/policy.ts";
import { readCollections } from "./config/collections.ts";
import { type ConfigFile, readConfigFile } from "./config/file.ts";
import { choice, existingFile, flag, integer, list, path, text } from "./config/kind.ts";
import { type LockAuthorityName, readLocks } from "./config/locks.ts";
import { ConfigError } from "./config/mistakes.ts";
import { readPolicies } from "./config/namespaces.ts";
import { readRateLimits } from "./config/rate-limits.ts";
import { type Effective, Reader, type Setting } from "./config/reader.ts";
import { contradictions } from "./config/safety.ts";
import { duration, size } from "./config/units.ts";
import { postgresUrl, type RedisAddress, type RedisTarget, redisUrl } from "./config/url.ts";
import type { CollectionPolicies } from "./conversation/record/policies.ts";
import type { LogLevel } from "./infra/log.ts";
import type { LockPolicies } from "./lock/policies.ts";
import type { Rule } from "./ratelimit/rule.ts";

export { ConfigError } from "./config/mistakes.ts";
export type { RedisTarget } from "./config/url.ts";

export type Topology = "embedded" | "single" | "cluster" | "sql-only";

export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
  /** With it, clients must show a certificate that it signed (mTLS). */
  readonly clientCaFile: string | undefined;
}

export interface ServerSettings {
  readonly host: string;
  /** 0: any free port. */
  readonly grpcPort: number;
  /** 0: any free port. */
  readonly httpPort: number;
  readonly tls: TlsFiles | undefined;
  /** Without it every caller may do everything. */
  readonly apiKeysFile: string | undefined;
  readonly insecure: boolean;
  readonly maxMessageBytes: number;
  readonly drainTimeoutMs: number;
  /** Origins of web pages that may call; "*" for any. */
  readonly corsOrigins: readonly string[];
}

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

export interface CacheSettings {
  readonly policies: NamespacePolicies;
  readonly l1: { readonly maxBytes: number; readonly maxItems: number | undefined };
}

export interface AuditSettings {
  /** Where the journal is. No two instances may share it. */
  readonly backupDir: string;
  readonly journalMaxBytes: number;
  readonly recoveryIntervalMs: number;
  /** The Redis stream on which records wait for the archive, and how many may. */
  readonly stream: string;
  readonly streamMaxLength: number;
  /** Undefined: records are kept for ever, however many. */
  readonly retention: { readonly maxAgeMs: number | undefined; readonly maxRecords: number | undefined };
  /** The file of the Ed25519 key that signs checkpoints; made when it is missing. */
  readonly signingKeyFile: string;
  /** What checkpoints call this log. */
  readonly origin: string;
}

export interface ConversationSettings {
  readonly policies: CollectionPolicies;
  /** For how long a watch can be resumed. */
  readonly changesKeptMs: number;
  /** How often what has expired is removed. */
  readonly sweepIntervalMs: number;
  /** Whether Redis holds JSON as well, for code that is not Holdfast. */
  readonly legacyCopies: boolean;
}

export interface LockSettings {
  readonly policies: LockPolicies;
  /** Who decides about locks. */
  readonly authority: LockAuthorityName;
  /** Who decides while Redis is away. Undefined: nobody. */
  readonly fallback: "postgres" | undefined;
  /** The masters of redlock; none where another decides. */
  readonly redlock: readonly RedisSettings[];
}

/** What was configured, complete and checked. Frozen through and through. */
export interface Config {
  readonly topology: Topology;
  readonly instanceId: string;
  readonly dataDir: string;
  readonly logLevel: LogLevel;
  /** Print what to try after the start, also when nobody watches a terminal. */
  readonly banner: boolean;
  readonly server: ServerSettings;
  readonly redis: RedisSettings | undefined;
  readonly database: DatabaseSettings;
  readonly breaker: BreakerSettings;
  readonly cache: CacheSettings;
  readonly audit: AuditSettings;
  readonly conversation: ConversationSettings;
  readonly lock: LockSettings;
  /** How often claims that are forgotten are removed. */
  readonly dedup: { readonly sweepIntervalMs: number };
  /** Read again whenever the file changes. */
  readonly ratelimit: { readonly rules: readonly Rule[] };
  readonly health: { readonly checkIntervalMs: number };
}

export type Environment = Readonly<Record<string, string | undefined>>;

export interface LoadedConfig {
  readonly config: Config;
  /** Every setting as it is in force, secrets masked, and where it came from. */
  readonly effective: readonly Effective[];
  /** Variables that look like mistyped settings, and may be another program's. */
  readonly doubts: readonly string[];
  readonly file: string | undefined;
}

const KiB = 1024;
const MiB = 1024 * KiB;
const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;

const port = integer({ min: 0, max: 65535, what: "a port from 0 to 65535 (0 takes any that is free)" });
const certificate = existingFile("the path of a PEM file that can be read");

function setting<T>(env: string, where: string, kind: Setting<T>["kind"]): Setting<T> {
  return { env, path: where.split("."), kind };
}

/** Reads the environment and holdfast.yaml. Rejects with one ConfigError that names everything that is wrong. */
export async function loadConfig(environment: Environment): Promise<LoadedConfig> {
  return resolveConfig(environment, await readConfigFile(environment.HOLDFAST_CONFIG?.trim() || undefined));
}

/** The same for a file that has been read. */
export function resolveConfig(environment: Environment, file: ConfigFile | undefined): LoadedConfig {
  const reader = new Reader({ environment, file });
  const config = read(reader);
  // The clients among the commands read their key from the environment.
  reader.refuseUnknown(["HOLDFAST_CONFIG", "HOLDFAST_API_KEY"]);
  if (reader.mistakes.length > 0) throw new ConfigError(reader.mistakes);
  return { config: deepFreeze(config), effective: reader.effective, doubts: reader.doubts(), file: file?.name };
}

function read(reader: Reader): Config {
  const server = readServer(reader);
  const dataDir = reader.required(setting("HOLDFAST_DATA_DIR", "data_dir", path()), resolve("data"));
  const redis = readRedis(reader);
  const database = readDatabase(reader, dataDir);
  const shared = database.kind === "postgres";
  for (const { where, what } of contradictions(
    { server: server.settings, redis: redis.settings },
    { ...server.given, ...redis.given },
  ))
    reader.refuse(where, what);
  return {
    topology: redis.settings ? (shared ? "cluster" : "single") : shared ? "sql-only" : "embedded",
    instanceId:
      reader.optional(
        setting(
          "HOLDFAST_INSTANCE_ID",
          "instance_id",
          text('1 to 64 letters, digits and "._-"', /^[A-Za-z0-9._-]{1,64}$/),
        ),
      ) ?? randomId(),
    dataDir,
    logLevel: reader.required(
      setting("HOLDFAST_LOG_LEVEL", "log_level", choice(["debug", "info", "warn", "error", "silent"])),
      "info",
    ),
    banner: reader.required(setting("HOLDFAST_BANNER", "banner", flag()), false),
    server: server.settings,
    redis: redis.settings,
    database,
    breaker: readBreaker(reader),
    cache: {
      policies: readPolicies(reader),
      l1: {
        maxBytes: reader.required(
          setting("CACHE_L1_MAX_BYTES", "cache.l1.max_bytes", size({ min: 64 * KiB, max: 64 * 1024 * MiB })),
          24 * MiB,
        ),
        maxItems: reader.optional(
          setting("CACHE_L1_MAX_ITEMS", "cache.l1.max_items", integer({ min: 1, max: 100_000_000 })),
        ),
      },
    },
    audit: readAudit(reader, dataDir),
    conversation: readConversation(reader),
    lock: readLock(reader, redis, shared),
    dedup: {
      sweepIntervalMs: reader.required(
        setting("DEDUP_SWEEP_INTERVAL", "dedup.sweep_interval", duration({ bare: "ms", min: 100, max: hour })),
        minute,
      ),
    },
    ratelimit: readRateLimits(reader),
    health: {
      checkIntervalMs: reader.required(
        setting("HEALTH_CHECK_INTERVAL", "health.check_interval", duration({ bare: "ms", min: 100, max: hour })),
        minute,
      ),
    },
  };
}

function readServer(reader: Reader) {
  const host = text("the address or name to listen on", /^[A-Za-z0-9.:_-]{1,253}$/);
  const origin = text('origins such as "https://app.example.com", or "*"', /^(\*|https?:\/\/[^/\s,]+)$/);
  const cert = setting("HOLDFAST_TLS_CERT", "server.tls.cert", certificate);
  const key = setting("HOLDFAST_TLS_KEY", "server.tls.key", certificate);
  const clientCa = setting("HOLDFAST_TLS_CLIENT_CA", "server.tls.client_ca", certificate);
  const keysFile = existingFile("the path of a file of API keys; `holdfast keys create --file ...` makes one");
  const certFile = reader.optional(cert);
  const keyFile = reader.optional(key);
  const clientCaFile = reader.optional(clientCa);
  const settings: ServerSettings = {
    host: reader.required(setting("HOLDFAST_HOST", "server.host", host), "127.0.0.1"),
    grpcPort: reader.required(setting("HOLDFAST_GRPC_PORT", "server.grpc_port", port), 7420),
    httpPort: reader.required(setting("HOLDFAST_HTTP_PORT", "server.http_port", port), 7421),
    tls: certFile !== undefined && keyFile !== undefined ? { certFile, keyFile, clientCaFile } : undefined,
    apiKeysFile: reader.optional(setting("HOLDFAST_API_KEYS_FILE", "server.api_keys_file", keysFile)),
    insecure: reader.required(setting("HOLDFAST_INSECURE", "server.insecure", flag()), false),
    maxMessageBytes: reader.required(
      // The default takes the largest value (4 MiB) with room to spare, and a batch of 1,000 values of 16 KiB.
      setting("HOLDFAST_MAX_MESSAGE_BYTES", "server.max_message_bytes", size({ min: 64 * KiB, max: 256 * MiB })),
      17 * MiB,
    ),
    drainTimeoutMs: reader.required(
      setting("HOLDFAST_DRAIN_TIMEOUT", "server.drain_timeout", duration({ bare: "ms", min: 0, max: hour })),
      10 * second,
    ),
    corsOrigins: reader.required(setting("HOLDFAST_CORS_ORIGINS", "server.cors_origins", list(origin)), []),
  };
  return { settings, given: { cert: reader.has(cert), key: reader.has(key), clientCa: reader.has(clientCa) } };
}

function readRedis(reader: Reader) {
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

function readDatabase(reader: Reader, dataDir: string): DatabaseSettings {
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

function readAudit(reader: Reader, dataDir: string): AuditSettings {
  return {
    backupDir: reader.required(setting("AUDIT_BACKUP_PATH", "audit.backup_path", path()), join(dataDir, "audit")),
    journalMaxBytes: reader.required(
      setting("AUDIT_JOURNAL_MAX_BYTES", "audit.journal_max_bytes", size({ min: MiB, max: 1024 * 1024 * MiB })),
      1024 * MiB,
    ),
    recoveryIntervalMs: reader.required(
      setting("AUDIT_RECOVERY_INTERVAL", "audit.recovery_interval", duration({ bare: "ms", min: second, max: day })),
      5 * minute,
    ),
    stream: reader.required(
      setting(
        "AUDIT_STREAM",
        "audit.stream",
        text('a key of 1 to 128 letters, digits and "._:-"', /^[A-Za-z0-9._:-]{1,128}$/),
      ),
      "audit_queue:stream",
    ),
    streamMaxLength: reader.required(
      setting("AUDIT_STREAM_MAX_LENGTH", "audit.stream_max_length", integer({ min: 1000, max: 100_000_000 })),
      250_000,
    ),
    retention: {
      maxAgeMs: reader.optional(
        setting(
          "AUDIT_RETENTION_AGE",
          "audit.retention.age",
          duration({ bare: "refused", min: day, max: 36_500 * day }),
        ),
      ),
      maxRecords: reader.optional(
        setting("AUDIT_RETENTION_COUNT", "audit.retention.count", integer({ min: 1, max: 1_000_000_000_000 })),
      ),
    },
    signingKeyFile: reader.required(
      setting("AUDIT_SIGNING_KEY", "audit.signing_key", path()),
      join(dataDir, "audit-signing-key.pem"),
    ),
    origin: reader.required(
      setting(
        "AUDIT_ORIGIN",
        "audit.origin",
        text('a name of 1 to 128 letters, digits and "._:/-"', /^[A-Za-z0-9._:/-]{1,128}$/),
      ),
      "holdfast",
    ),
  };
}

function readConversation(reader: Reader): ConversationSettings {
  return {
    policies: readCollections(reader),
    changesKeptMs: reader.required(
      // The contract promises an hour.
      setting(
        "CONVERSATION_CHANGES_KEPT",
        "conversation.changes_kept",
        duration({ bare: "refused", min: hour, max: 365 * day }),
      ),
      hour,
    ),
    sweepIntervalMs: reader.required(
      // The contract promises that watchers hear of an expiry within a minute.
      setting(
        "CONVERSATION_SWEEP_INTERVAL",
        "conversation.sweep_interval",
        duration({ bare: "ms", min: 100, max: minute }),
      ),
      minute,
    ),
    legacyCopies: reader.required(setting("CONVERSATION_LEGACY_COPIES", "conversation.legacy_copies", flag()), true),
  };
}

function readLock(reader: Reader, redis: ReturnType<typeof readRedis>, hasPostgres: boolean): LockSettings {
  const { masters, ...choices } = readLocks(reader, { hasRedis: redis.settings !== undefined, hasPostgres });
  return { ...choices, redlock: masters.map(redis.settingsOf) };
}

function readBreaker(reader: Reader): BreakerSettings {
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

/** The host for people, and enough chance that two instances on one host differ. */
function randomId(): string {
  const host = hostname()
    .replaceAll(/[^A-Za-z0-9._-]/g, "-")
    .slice(0, 50);
  return `${host}-${randomBytes(4).toString("hex")}`;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const part of Object.values(value)) deepFreeze(part);
  }
  return value;
}
