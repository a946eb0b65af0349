import {
  count,
  expiry,
  flag,
  history,
  milliseconds,
  ofAll,
  postgres,
  redis,
  type SettingRow,
  seconds,
  unmistakable,
} from "./setting-row.ts";

/** Milliseconds of a lease. */
const unmistakableLease = {
  good: [
    ["30m", 1_800_000],
    ["100ms", 100],
    ["24h", 86_400_000],
  ],
  bad: ["30", "99ms", "25h", "0", "soon"],
  goodInFile: [["30m", 1_800_000]],
  badInFile: ["30", "25h", "never"],
} as const;
const threeMasters = "redis://a,redis://b:7000,redis://c";
const threeInFile = '["redis://a", "rediss://b:7000", "redis://c"]';

/** Of what the server is there for. */
export const capabilitySettings: readonly SettingRow[] = [
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
    env: "DEDUP_SWEEP_INTERVAL",
    path: "dedup.sweep_interval",
    ...milliseconds,
    bad: [...milliseconds.bad, "99ms", "61m"],
    value: ({ dedup }) => dedup.sweepIntervalMs,
  },
  {
    env: "LOCK_TTL",
    path: "lock.default.ttl",
    ...unmistakableLease,
    value: ({ lock }) => lock.policies.fallback.ttlMs,
  },
  {
    env: "LOCK_AUTHORITY",
    path: "lock.authority",
    good: [
      ["redis", "redis"],
      ["postgres", "postgres"],
    ],
    bad: ["zookeeper", "Redis", "sqlite", "redlock,redis"],
    goodInFile: [["postgres", "postgres"]],
    badInFile: ["zookeeper", "7"],
    value: ({ lock }) => lock.authority,
    beside: { ...redis, ...postgres },
  },
  {
    env: "LOCK_FALLBACK",
    path: "lock.fallback",
    good: [
      ["postgres", "postgres"],
      ["none", undefined],
    ],
    bad: ["sqlite", "true"],
    goodInFile: [["postgres", "postgres"]],
    badInFile: ["sqlite", "true"],
    value: ({ lock }) => lock.fallback,
    beside: { ...redis, ...postgres },
  },
  {
    env: "LOCK_REDLOCK_URLS",
    path: "lock.redlock_urls",
    good: [[threeMasters, ["a:6379", "b:7000", "c:6379"]]],
    bad: [
      "redis://a",
      "redis://a,redis://b",
      "redis://a,redis://b,redis://a",
      "a,b,c",
      "redis-cluster://a,redis://b,redis://c",
    ],
    goodInFile: [[threeInFile, ["a:6379", "b:7000", "c:6379"]]],
    badInFile: ["redis://a", '["redis://a"]', "[7, 8, 9]"],
    value: ({ lock }) => lock.redlock.flatMap(({ target }) => target.nodes.map(({ host, port }) => `${host}:${port}`)),
    beside: { LOCK_AUTHORITY: "redlock" },
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
];

/** Of leases on locks of some names, which only the file can hold. */
export const lockNameSettings: readonly InFile[] = [
  {
    path: "lock.names.nightly*.ttl",
    goodInFile: unmistakableLease.goodInFile,
    badInFile: unmistakableLease.badInFile,
    value: ({ lock }) => lock.policies.names["nightly*"]?.ttlMs,
  },
];

export type InFile = Pick<SettingRow, "path" | "goodInFile" | "badInFile" | "value">;

/** Of the policies of some collections, which only the file can hold. */
export const collectionSettings: readonly InFile[] = [
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

/** Of the policies of some namespaces, which only the file can hold. */
export const namespaceSettings: readonly InFile[] = [
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
