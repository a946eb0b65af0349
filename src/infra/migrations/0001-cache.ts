import type { Migration } from "../migrations.ts";

/**
 * The cache's truth: entries, the marks by which tags and namespaces are invalidated, leases of callers who fill a missing
 * key, and answers remembered for retries. Times are milliseconds since 1970. Text is compared byte by byte in both dialects,
 * so that paging by key goes in the same order everywhere.
 */
export const cache: Migration = {
  version: 1,
  name: "cache",
  sqlite: [...tables({ text: "TEXT", blob: "BLOB" }), ...indexes()],
  postgres: [...tables({ text: 'TEXT COLLATE "C"', blob: "BYTEA" }), ...indexes()],
};

function tables({ text, blob }: { text: string; blob: string }): readonly string[] {
  return [
    // stamps: JSON of the namespace's and the tags' stamps at the time of writing. deleted: a tombstone. unhealed: Redis was
    // away when it changed. stale_until: the physical end; expires_at: the logical one. Null is never.
    `CREATE TABLE cache_entry (
      namespace ${text} NOT NULL,
      key ${text} NOT NULL,
      version BIGINT NOT NULL,
      deleted BIGINT NOT NULL,
      value ${blob},
      is_text BIGINT NOT NULL,
      content_type TEXT NOT NULL,
      created_at BIGINT NOT NULL,
      expires_at BIGINT,
      stale_until BIGINT,
      stamps TEXT NOT NULL,
      unhealed BIGINT NOT NULL DEFAULT 0,
      PRIMARY KEY (namespace, key)
    )`,
    // tag '' is the namespace itself. idle_since: the version since when no entry is known to carry it. Null: one may.
    `CREATE TABLE cache_mark (
      namespace ${text} NOT NULL,
      tag ${text} NOT NULL,
      stamp BIGINT NOT NULL,
      unhealed BIGINT NOT NULL DEFAULT 0,
      idle_since BIGINT,
      PRIMARY KEY (namespace, tag)
    )`,
    `CREATE TABLE cache_lease (
      namespace ${text} NOT NULL,
      key ${text} NOT NULL,
      token TEXT NOT NULL,
      expires_at BIGINT NOT NULL,
      PRIMARY KEY (namespace, key)
    )`,
    `CREATE TABLE cache_request (
      namespace ${text} NOT NULL,
      key ${text} NOT NULL,
      request_id ${text} NOT NULL,
      answer TEXT NOT NULL,
      expires_at BIGINT NOT NULL,
      PRIMARY KEY (namespace, key, request_id)
    )`,
  ];
}

function indexes(): readonly string[] {
  return [
    "CREATE INDEX cache_entry_unhealed ON cache_entry (namespace, key) WHERE unhealed <> 0",
    "CREATE INDEX cache_entry_stale_until ON cache_entry (stale_until) WHERE stale_until IS NOT NULL",
    "CREATE INDEX cache_mark_unhealed ON cache_mark (namespace, tag) WHERE unhealed <> 0",
    "CREATE INDEX cache_lease_expires_at ON cache_lease (expires_at)",
    "CREATE INDEX cache_request_expires_at ON cache_request (expires_at)",
  ];
}
