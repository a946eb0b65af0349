import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { resolve } from "node:path";
import type { NamespacePolicies } from "./cache/policy.ts";
import { type AuditSettings, readAudit } from "./config/audit.ts";
import { type ConversationSettings, readConversation } from "./config/conversations.ts";
import { type ConfigFile, readConfigFile } from "./config/file.ts";
import { choice, flag, integer, path, text } from "./config/kind.ts";
import { type LockAuthorityName, readLocks } from "./config/locks.ts";
import { ConfigError } from "./config/mistakes.ts";
import { readPolicies } from "./config/namespaces.ts";
import { readRateLimits } from "./config/rate-limits.ts";
import { type Effective, Reader, setting } from "./config/reader.ts";
import { contradictions } from "./config/safety.ts";
import { readServer, type ServerSettings } from "./config/server.ts";
import {
  type BreakerSettings,
  type DatabaseSettings,
  type RedisSettings,
  readBreaker,
  readDatabase,
  readRedis,
} from "./config/stores.ts";
import { duration, hour, KiB, MiB, minute, size } from "./config/units.ts";
import type { LogLevel } from "./infra/log.ts";
import type { LockPolicies } from "./lock/policies.ts";
import type { Rule } from "./ratelimit/rule.ts";

export { ConfigError } from "./config/mistakes.ts";
export type { DatabaseSettings, RedisSettings } from "./config/stores.ts";
export type { RedisTarget } from "./config/url.ts";

export type Topology = "embedded" | "single" | "cluster" | "sql-only";

export interface CacheSettings {
  readonly policies: NamespacePolicies;
  readonly l1: { readonly maxBytes: number; readonly maxItems: number | undefined };
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

function readLock(reader: Reader, redis: ReturnType<typeof readRedis>, hasPostgres: boolean): LockSettings {
  const { masters, ...choices } = readLocks(reader, { hasRedis: redis.settings !== undefined, hasPostgres });
  return { ...choices, redlock: masters.map(redis.settingsOf) };
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
