import { expect } from "vitest";
import {
  count,
  file,
  flag,
  milliseconds,
  ofPostgres,
  postgres,
  redis,
  redisTls,
  type SettingRow,
} from "./setting-row.ts";

/** Of Redis and of the database. */
export const storageSettings: readonly SettingRow[] = [
  {
    env: "REDIS_URL",
    path: "redis.url",
    good: [
      ["redis://h", expect.objectContaining({ mode: "single", nodes: [{ host: "h", port: 6379 }] })],
      ["redis://u:p%40ss@h:1/3", expect.objectContaining({ username: "u", password: "p@ss", db: 3 })],
      [
        "redis://a:1,b:2",
        expect.objectContaining({
          mode: "cluster",
          nodes: [
            { host: "a", port: 1 },
            { host: "b", port: 2 },
          ],
        }),
      ],
      [
        "redis://u:p@a:1,redis://u:p@b:2",
        expect.objectContaining({
          mode: "cluster",
          password: "p",
          nodes: [
            { host: "a", port: 1 },
            { host: "b", port: 2 },
          ],
        }),
      ],
      ["redis-cluster://a:1", expect.objectContaining({ mode: "cluster" })],
      [
        "redis-sentinel://a,b:2/main/5",
        expect.objectContaining({
          mode: "sentinel",
          sentinelName: "main",
          db: 5,
          nodes: [
            { host: "a", port: 26379 },
            { host: "b", port: 2 },
          ],
        }),
      ],
    ],
    bad: [
      "h:6379",
      "http://h",
      "redis://",
      "redis://h:0",
      "redis://h:99999",
      "redis://h/x",
      "redis-cluster://h/1",
      "redis-sentinel://h:1",
      "redis://u:1@a,redis://u:2@b",
      "redis://a,rediss://b",
      "redis://%zz@h",
    ],
    goodInFile: [["redis://h:1", expect.objectContaining({ nodes: [{ host: "h", port: 1 }] })]],
    badInFile: ["7", "[redis://a]"],
    value: (config) => config.redis?.target,
  },
  {
    env: "DISABLE_REDIS",
    path: "redis.disabled",
    ...flag,
    value: (config) => config.redis === undefined,
    beside: redis,
  },
  {
    env: "REDIS_COMMAND_TIMEOUT",
    path: "redis.command_timeout",
    ...milliseconds,
    value: (config) => config.redis?.commandTimeoutMs,
    beside: redis,
  },
  {
    env: "REDIS_CONNECT_TIMEOUT",
    path: "redis.connect_timeout",
    ...milliseconds,
    value: (config) => config.redis?.connectTimeoutMs,
    beside: redis,
  },
  {
    env: "REDIS_TLS_CA",
    path: "redis.tls.ca",
    ...file,
    value: (config) => config.redis?.tls?.caFile,
    beside: redisTls,
  },
  {
    env: "REDIS_TLS_CERT",
    path: "redis.tls.cert",
    ...file,
    value: (config) => config.redis?.tls?.certFile,
    beside: redisTls,
  },
  {
    env: "REDIS_TLS_KEY",
    path: "redis.tls.key",
    ...file,
    value: (config) => config.redis?.tls?.keyFile,
    beside: redisTls,
  },
  {
    env: "DATABASE_URL",
    path: "database.url",
    good: [
      ["postgres://u:p@h:5432/db", "postgres://u:p@h:5432/db"],
      ["postgresql://u@/db?host=/run/postgresql", "postgresql://u@/db?host=/run/postgresql"],
    ],
    bad: ["mysql://h/db", "h:5432", "postgres://h:port/db"],
    goodInFile: [["postgres://h/db", "postgres://h/db"]],
    badInFile: ["7", "sqlite://x"],
    value: (config) => ofPostgres(config)?.url,
  },
  {
    env: "DATABASE_POOL_SIZE",
    path: "database.pool_size",
    ...count,
    value: (config) => ofPostgres(config)?.poolSize,
    beside: postgres,
  },
  {
    env: "DATABASE_CONNECT_TIMEOUT",
    path: "database.connect_timeout",
    ...milliseconds,
    value: (config) => ofPostgres(config)?.connectTimeoutMs,
    beside: postgres,
  },
  {
    env: "DATABASE_STATEMENT_TIMEOUT",
    path: "database.statement_timeout",
    ...milliseconds,
    value: (config) => ofPostgres(config)?.statementTimeoutMs,
    beside: postgres,
  },
];
