import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { ConfigError } from "../../src/config/mistakes.ts";
import { type Config, resolveConfig } from "../../src/config.ts";
import { scratchDirectory } from "../support/scratch.ts";

const directory = scratchDirectory("config");
const pem = join(directory.path, "some.pem");
writeFileSync(pem, "");

interface Row {
  readonly env?: string;
  readonly path: string;
  /** Written in the environment, and what comes of it. */
  readonly good: readonly (readonly [written: string, value: unknown])[];
  readonly bad: readonly string[];
  /** Written in the file as YAML. */
  readonly goodInFile: readonly (readonly [written: string, value: unknown])[];
  readonly badInFile: readonly string[];
  readonly value: (config: Config) => unknown;
  /** What must be set too for the setting to be right or to show. */
  readonly beside?: Readonly<Record<string, string>>;
}

const port = {
  good: [
    ["0", 0],
    ["65535", 65535],
    [" 8080 ", 8080],
  ],
  bad: ["-1", "65536", "http", "1.5", "0x10", "1e3"],
  goodInFile: [["8080", 8080]],
  badInFile: ["65536", '"8080"', "1.5", "true", "[1]", "{a: 1}"],
} as const;
const flag = {
  good: [
    ["true", true],
    ["false", false],
  ],
  bad: ["yes", "1", "TRUE"],
  goodInFile: [["true", true]],
  badInFile: ['"true"', "1", "yes"],
} as const;
const milliseconds = {
  good: [
    ["1500", 1500],
    ["2s", 2000],
    ["1m", 60_000],
  ],
  bad: ["-1", "1.5.2s", "soon", "5 parsecs", "99999999999999"],
  goodInFile: [
    ["2s", 2000],
    ["1500ms", 1500],
  ],
  badInFile: ["1500", "soon", "true", "-2s"],
} as const;
const seconds = {
  good: [
    ["3600", 3_600_000],
    ["300ms", 300],
    ["1h", 3_600_000],
    ["0.5s", 500],
  ],
  bad: ["-1", "1x", "999999999999"],
  goodInFile: [
    ["5m", 300_000],
    ["90d", 7_776_000_000],
  ],
  badInFile: ["300", "4000d", "[]"],
} as const;
const file = {
  good: [[pem, pem]],
  bad: ["/no/such/file.pem", directory.path],
  goodInFile: [[JSON.stringify(pem), pem]],
  badInFile: ["/no/such/file.pem", "7"],
} as const;
const count = {
  good: [["7", 7]],
  bad: ["0", "-1", "many", "1.5"],
  goodInFile: [["7", 7]],
  badInFile: ["0", '"7"', "many"],
} as const;
/** Milliseconds, where a number without its unit would be a guess. */
const unmistakable = {
  good: [["2h", 7_200_000]],
  bad: ["86400", "-1", "soon", "99999d"],
  goodInFile: [["36h", 129_600_000]],
  badInFile: ["86400", "soon", "true"],
} as const;
const expiry = {
  good: [
    ["sliding", true],
    ["fixed", false],
  ],
  bad: ["true", "Fixed"],
  goodInFile: [["fixed", false]],
  badInFile: ["true", "slides"],
} as const;
const history = {
  good: [
    ["0", 0],
    ["1000", 1000],
  ],
  bad: ["-1", "1001", "all"],
  goodInFile: [["10", 10]],
  badInFile: ["1001", '"10"'],
} as const;
const tlsPair = { HOLDFAST_TLS_CERT: pem, HOLDFAST_TLS_KEY: pem };
const postgres = { DATABASE_URL: "postgres://h/db" };
const redis = { REDIS_URL: "redis://h" };
const redisTls = { REDIS_URL: "rediss://h", REDIS_TLS_CERT: pem, REDIS_TLS_KEY: pem };
const ofAll = ({ conversation }: Config) => conversation.policies.fallback;
const ofPostgres = (config: Config) => (config.database.kind === "postgres" ? config.database : undefined);

const rows: readonly Row[] = [
  {
    env: "HOLDFAST_HOST",
    path: "server.host",
    good: [
      ["127.0.0.2", "127.0.0.2"],
      ["::1", "::1"],
      ["localhost", "localhost"],
    ],
    bad: ["a b", "http://x/"],
    goodInFile: [["localhost", "localhost"]],
    badInFile: ["7", "a b"],
    value: ({ server }) => server.host,
  },
  { env: "HOLDFAST_GRPC_PORT", path: "server.grpc_port", ...port, value: ({ server }) => server.grpcPort },
  { env: "HOLDFAST_HTTP_PORT", path: "server.http_port", ...port, value: ({ server }) => server.httpPort },
  {
    env: "HOLDFAST_TLS_CERT",
    path: "server.tls.cert",
    ...file,
    value: ({ server }) => server.tls?.certFile,
    beside: tlsPair,
  },
  {
    env: "HOLDFAST_TLS_KEY",
    path: "server.tls.key",
    ...file,
    value: ({ server }) => server.tls?.keyFile,
    beside: tlsPair,
  },
  {
    env: "HOLDFAST_TLS_CLIENT_CA",
    path: "server.tls.client_ca",
    ...file,
    value: ({ server }) => server.tls?.clientCaFile,
    beside: tlsPair,
  },
  { env: "HOLDFAST_API_KEYS_FILE", path: "server.api_keys_file", ...file, value: ({ server }) => server.apiKeysFile },
  { env: "HOLDFAST_INSECURE", path: "server.insecure", ...flag, value: ({ server }) => server.insecure },
  {
    env: "HOLDFAST_MAX_MESSAGE_BYTES",
    path: "server.max_message_bytes",
    good: [
      ["65536", 65_536],
      ["8MiB", 8_388_608],
    ],
    bad: ["1", "8MB", "1GiB", "-5"],
    goodInFile: [
      ["65536", 65_536],
      ["8MiB", 8_388_608],
    ],
    badInFile: ["1", "8 megabytes"],
    value: ({ server }) => server.maxMessageBytes,
  },
  {
    env: "HOLDFAST_DRAIN_TIMEOUT",
    path: "server.drain_timeout",
    ...milliseconds,
    value: ({ server }) => server.drainTimeoutMs,
  },
  {
    env: "HOLDFAST_CORS_ORIGINS",
    path: "server.cors_origins",
    good: [
      ["*", ["*"]],
      ["https://a.example, http://localhost:3000", ["https://a.example", "http://localhost:3000"]],
    ],
    bad: ["a.example", "https://a.example/path", "https://a.example,"],
    goodInFile: [["[https://a.example]", ["https://a.example"]]],
    badInFile: ["https://a.example", "[7]"],
    value: ({ server }) => server.corsOrigins,
  },
  {
    env: "HOLDFAST_DATA_DIR",
    path: "data_dir",
    good: [["/var/lib/holdfast", "/var/lib/holdfast"]],
    bad: [],
    goodInFile: [["/var/lib/holdfast", "/var/lib/holdfast"]],
    badInFile: ["7", '"a\\0b"'],
    value: ({ dataDir }) => dataDir,
  },
  {
    env: "HOLDFAST_INSTANCE_ID",
    path: "instance_id",
    good: [["pod-7.eu_1", "pod-7.eu_1"]],
    bad: ["a b", "a/b", "x".repeat(65)],
    goodInFile: [["pod-7", "pod-7"]],
    badInFile: ["7", "a b"],
    value: ({ instanceId }) => instanceId,
  },
  {
    env: "HOLDFAST_LOG_LEVEL",
    path: "log_level",
    good: [["debug", "debug"]],
    bad: ["loud", "INFO"],
    goodInFile: [["warn", "warn"]],
    badInFile: ["loud", "3"],
    value: ({ logLevel }) => logLevel,
  },
  { env: "HOLDFAST_BANNER", path: "banner", ...flag, value: ({ banner }) => banner },
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
  { env: "CACHE_TTL", path: "cache.default.ttl", ...seconds, value: ({ cache }) => cache.policies.fallback.ttlMs },
  {
    env: "CACHE_L1_TTL",
    path: "cache.default.l1_ttl",
    ...seconds,
    value: ({ cache }) => cache.policies.fallback.l1TtlMs,
  },
  { env: "CACHE_L1_MAX_ITEMS", path: "cache.l1.max_items", ...count, value: ({ cache }) => cache.l1.maxItems },
  {
    env: "CACHE_L1_MAX_BYTES",
    path: "cache.l1.max_bytes",
    good: [["1GiB", 1_073_741_824]],
    bad: ["0", "1000", "1 GB"],
    goodInFile: [["128KiB", 131_072]],
    badInFile: ["5", "lots"],
    value: ({ cache }) => cache.l1.maxBytes,
  },
  {
    env: "CIRCUIT_BREAKER_FAILURE_THRESHOLD",
    path: "circuit_breaker.failure_threshold",
    ...count,
    value: ({ breaker }) => breaker.failureThreshold,
  },
  {
    env: "CIRCUIT_BREAKER_RESET_TIMEOUT",
    path: "circuit_breaker.reset_timeout",
    ...milliseconds,
    value: ({ breaker }) => breaker.resetTimeoutMs,
  },
  {
    env: "CIRCUIT_BREAKER_HALF_OPEN_MAX_CALLS",
    path: "circuit_breaker.half_open_max_calls",
    ...count,
    value: ({ breaker }) => breaker.halfOpenMaxCalls,
  },
  {
    env: "AUDIT_BACKUP_PATH",
    path: "audit.backup_path",
    good: [["/var/audit", "/var/audit"]],
    bad: [],
    goodInFile: [["/var/audit", "/var/audit"]],
    badInFile: ["7"],
    value: ({ audit }) => audit.backupDir,
  },
  { env: "CONVERSATION_TTL", path: "conversation.default.ttl", ...unmistakable, value: (it) => ofAll(it).ttlMs },
  { env: "CONVERSATION_EXPIRY", path: "conversation.default.expiry", ...expiry, value: (it) => ofAll(it).sliding },
  { env: "CONVERSATION_HISTORY", path: "conversation.default.history", ...history, value: (it) => ofAll(it).history },
  {
    env: "CONVERSATION_TOMBSTONE",
    path: "conversation.default.tombstone",
    ...unmistakable,
    bad: [...unmistakable.bad, "59s", "0"],
    value: (it) => ofAll(it).tombstoneMs,
  },
  {
    path: "conversation.strict_collections",
    good: [],
    bad: [],
    goodInFile: flag.goodInFile,
    badInFile: flag.badInFile,
    value: ({ conversation }) => conversation.policies.strict,
  },
  {
    env: "CONVERSATION_CHANGES_KEPT",
    path: "conversation.changes_kept",
    ...unmistakable,
    bad: [...unmistakable.bad, "59m"],
    value: ({ conversation }) => conversation.changesKeptMs,
  },
  {
    env: "CONVERSATION_SWEEP_INTERVAL",
    path: "conversation.sweep_interval",
    ...milliseconds,
    bad: [...milliseconds.bad, "99ms", "61s"],
    value: ({ conversation }) => conversation.sweepIntervalMs,
  },
  {
    env: "CONVERSATION_LEGACY_COPIES",
    path: "conversation.legacy_copies",
    ...flag,
    value: ({ conversation }) => conversation.legacyCopies,
  },
  {
    env: "AUDIT_RECOVERY_INTERVAL",
    path: "audit.recovery_interval",
    ...milliseconds,
    value: ({ audit }) => audit.recoveryIntervalMs,
  },
  {
    env: "AUDIT_JOURNAL_MAX_BYTES",
    path: "audit.journal_max_bytes",
    good: [["2GiB", 2 * 1024 ** 3]],
    bad: ["1KiB", "much"],
    goodInFile: [["2GiB", 2 * 1024 ** 3]],
    badInFile: ["1KiB", "much"],
    value: ({ audit }) => audit.journalMaxBytes,
  },
  {
    env: "AUDIT_STREAM",
    path: "audit.stream",
    good: [["audit:other", "audit:other"]],
    bad: ["a b", "a{b}"],
    goodInFile: [["audit:other", "audit:other"]],
    badInFile: ["a b", "7"],
    value: ({ audit }) => audit.stream,
  },
  {
    env: "AUDIT_STREAM_MAX_LENGTH",
    path: "audit.stream_max_length",
    good: [["5000", 5000]],
    bad: ["999", "many"],
    goodInFile: [["5000", 5000]],
    badInFile: ["999", "many"],
    value: ({ audit }) => audit.streamMaxLength,
  },
  {
    env: "AUDIT_RETENTION_AGE",
    path: "audit.retention.age",
    good: [["90d", 90 * 86_400_000]],
    bad: ["180", "0", "15552000", "23h", "long"],
    goodInFile: [["90d", 90 * 86_400_000]],
    badInFile: ["23h", "180", "0"],
    value: ({ audit }) => audit.retention.maxAgeMs,
  },
  {
    env: "AUDIT_RETENTION_COUNT",
    path: "audit.retention.count",
    good: [["1000000", 1_000_000]],
    bad: ["0", "many"],
    goodInFile: [["1000000", 1_000_000]],
    badInFile: ["0", "many"],
    value: ({ audit }) => audit.retention.maxRecords,
  },
  {
    env: "AUDIT_SIGNING_KEY",
    path: "audit.signing_key",
    good: [["/etc/key.pem", "/etc/key.pem"]],
    bad: [],
    goodInFile: [["/etc/key.pem", "/etc/key.pem"]],
    badInFile: ["7"],
    value: ({ audit }) => audit.signingKeyFile,
  },
  {
    env: "AUDIT_ORIGIN",
    path: "audit.origin",
    good: [["example.com/audit", "example.com/audit"]],
    bad: ["a b"],
    goodInFile: [["example.com/audit", "example.com/audit"]],
    badInFile: ["a b"],
    value: ({ audit }) => audit.origin,
  },
  {
    env: "HEALTH_CHECK_INTERVAL",
    path: "health.check_interval",
    ...milliseconds,
    value: ({ health }) => health.checkIntervalMs,
  },
];

type InFile = Pick<Row, "path" | "goodInFile" | "badInFile" | "value">;

const collectionRows: readonly InFile[] = [
  { name: "ttl", ...unmistakable, read: "ttlMs" as const },
  { name: "expiry", ...expiry, read: "sliding" as const },
  { name: "history", ...history, read: "history" as const },
  { name: "tombstone", ...unmistakable, read: "tombstoneMs" as const },
].map(({ name, read, goodInFile, badInFile }) => ({
  path: `conversation.collections.support*.${name}`,
  goodInFile,
  badInFile,
  value: ({ conversation }) => conversation.policies.collections["support*"]?.[read],
}));

const policyRows: readonly InFile[] = [
  { name: "ttl", ...seconds, read: "ttlMs" as const },
  { name: "l1_ttl", ...seconds, read: "l1TtlMs" as const },
  { name: "stale_for", ...seconds, read: "staleForMs" as const },
  { name: "durable", ...flag, read: "durable" as const },
  { name: "jitter", goodInFile: [["0.5", 0.5]] as const, badInFile: ["1.1", "-0.1", "half"], read: "jitter" as const },
  { name: "eager_refresh", goodInFile: [["0.8", 0.8]] as const, badInFile: ["2", "on"], read: "eagerRefresh" as const },
  { name: "max_bytes", goodInFile: [["1KiB", 1024]] as const, badInFile: ["0", "5MiB"], read: "maxBytes" as const },
  { name: "warm", goodInFile: [["[a*, b]", ["a*", "b"]]] as const, badInFile: ["a*", "[7]"], read: "warm" as const },
].map(({ name, read, goodInFile, badInFile }) => ({
  path: `cache.namespaces.orders*.${name}`,
  goodInFile,
  badInFile,
  value: ({ cache }) => cache.policies.namespaces["orders*"]?.[read],
}));

/** Builds the file's content around one value: ("a.b", "1") is {a: {b: 1}}. */
function fileWith(path: string, written: string, beside: Readonly<Record<string, string>> = {}) {
  let content: unknown = parse(written);
  for (const step of path.split(".").reverse()) content = { [step]: content };
  return { environment: beside, file: { name: "holdfast.yaml", content } };
}

function mistakesOf(run: () => unknown): ConfigError["mistakes"] {
  try {
    run();
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
  return [];
}

describe.each(rows.filter((row) => row.env !== undefined))("$env", ({ env = "", good, bad, value, beside }) => {
  it.each(good)("takes %s", (written, expected) => {
    expect(value(resolveConfig({ ...beside, [env]: written }, undefined).config)).toEqual(expected);
  });

  it.each(bad)("refuses %j, naming the variable, what was seen and what is wanted", (written) => {
    const mistakes = mistakesOf(() => resolveConfig({ ...beside, [env]: written }, undefined));
    expect(mistakes.map(({ where }) => where)).toContain(env);
    expect(mistakes.find(({ where }) => where === env)?.what).toMatch(/^is .+, wanted .+/);
  });
});

describe.each([...rows, ...policyRows, ...collectionRows])("$path in the file", (row) => {
  const { path, goodInFile, badInFile, value } = row;
  const env = "env" in row ? row.env : undefined;
  const beside = Object.fromEntries(
    Object.entries("beside" in row ? (row.beside ?? {}) : {}).filter(([name]) => name !== env),
  );

  it.each(goodInFile)("takes %s", (written, expected) => {
    const { environment, file: content } = fileWith(path, written, beside);
    expect(value(resolveConfig(environment, content).config)).toEqual(expected);
  });

  it.each(badInFile)("refuses %s, naming the path, what was seen and what is wanted", (written) => {
    const { environment, file: content } = fileWith(path, written, beside);
    const mistakes = mistakesOf(() => resolveConfig(environment, content));
    const mistake = mistakes.find(({ where }) => where === `holdfast.yaml: ${path}`);
    expect(mistake?.what).toMatch(/^is .+, wanted .+/);
  });
});

it("has a row for every setting that the environment can hold", () => {
  const { effective } = resolveConfig({}, undefined);
  const variables = effective.flatMap(({ env }) => (env === undefined ? [] : [env]));
  expect(variables.toSorted()).toEqual(rows.flatMap(({ env }) => env ?? []).toSorted());
});
