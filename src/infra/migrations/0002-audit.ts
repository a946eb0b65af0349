import type { Migration } from "../migrations.ts";

/**
 * The audit log's truth: the records, in the order of the Merkle tree's leaves, and what is needed to append to it. Times are
 * microseconds since 1970. The keys are 53-bit hashes of what people search for: the real text is in the leaf, and is compared
 * when a key matches. Text is compared byte by byte in both dialects.
 */
export const audit: Migration = {
  version: 2,
  name: "audit",
  sqlite: [...tables({ text: "TEXT", blob: "BLOB", leafIndex: "INTEGER" }), ...blockIndex(), ...indexes()],
  postgres: [
    ...tables({ text: 'TEXT COLLATE "C"', blob: "BYTEA", leafIndex: "BIGINT" }),
    ...indexes(),
    ...keyIndexes(),
  ],
};

function tables({ text, blob, leafIndex }: Record<"text" | "blob" | "leafIndex", string>): readonly string[] {
  return [
    // One row. frontier: the roots of the perfect subtrees that the tree of this size consists of, the largest first. Whoever
    // appends holds this row, so the order of the leaves is one for all instances.
    `CREATE TABLE audit_head (
      id BIGINT NOT NULL PRIMARY KEY,
      size BIGINT NOT NULL,
      frontier ${blob} NOT NULL
    )`,
    `INSERT INTO audit_head (id, size, frontier) VALUES (1, 0, ${blob === "BYTEA" ? "''::bytea" : "x''"})`,
    // The largest sequence held of each producer; what is above it need not be looked up.
    `CREATE TABLE audit_producer (
      producer ${text} NOT NULL PRIMARY KEY,
      last_sequence BIGINT NOT NULL
    )`,
    // leaf: the serialized AuditLeaf; null when retention has dropped the record, and then only identity and hash are left.
    // review: the last decision as a serialized AuditReview. An unset key is null.
    `CREATE TABLE audit_record (
      leaf_index ${leafIndex} NOT NULL PRIMARY KEY,
      producer ${text} NOT NULL,
      sequence BIGINT NOT NULL,
      leaf_hash ${blob} NOT NULL,
      accept_us BIGINT NOT NULL,
      occur_us BIGINT NOT NULL,
      actor_key BIGINT,
      action_key BIGINT,
      resource_key BIGINT,
      resource_type_key BIGINT,
      trace_key BIGINT,
      service_key BIGINT,
      outcome BIGINT NOT NULL,
      status BIGINT NOT NULL,
      review ${blob},
      leaf ${blob}
    )`,
    // Distinct actions, so that a prefix can be searched for.
    `CREATE TABLE audit_action (
      action ${text} NOT NULL PRIMARY KEY
    )`,
    // Roots of perfect subtrees of 256, 65,536, ... leaves (level 8, 16, ...), from which any other node is a few hashes away.
    `CREATE TABLE audit_node (
      level BIGINT NOT NULL,
      node_index BIGINT NOT NULL,
      hash ${blob} NOT NULL,
      PRIMARY KEY (level, node_index)
    )`,
    // What came under an identity that is held with other content, and could not be refused any more.
    `CREATE TABLE audit_conflict (
      producer ${text} NOT NULL,
      sequence BIGINT NOT NULL,
      leaf_hash ${blob} NOT NULL,
      leaf ${blob} NOT NULL,
      found_at BIGINT NOT NULL,
      PRIMARY KEY (producer, sequence, leaf_hash)
    )`,
    // Answers remembered for retries; expires_at in milliseconds since 1970.
    `CREATE TABLE audit_request (
      scope ${text} NOT NULL,
      request_id ${text} NOT NULL,
      answer ${blob} NOT NULL,
      expires_at BIGINT NOT NULL,
      PRIMARY KEY (scope, request_id)
    )`,
  ];
}

function indexes(): readonly string[] {
  return [
    "CREATE UNIQUE INDEX audit_record_identity ON audit_record (producer, sequence)",
    // status 2 is PENDING.
    "CREATE INDEX audit_record_pending ON audit_record (occur_us, leaf_index) WHERE status = 2",
    // PENDING, APPROVED and REJECTED: few of the records of a resource, and asked for before each use of what has to be approved.
    `CREATE INDEX audit_record_reviewable ON audit_record (resource_key, occur_us, leaf_index)
      WHERE status IN (2, 3, 4) AND resource_key IS NOT NULL`,
    "CREATE INDEX audit_request_expires_at ON audit_request (expires_at)",
  ];
}

/** Postgres keeps an index up to date for a few microseconds a row. */
function keyIndexes(): readonly string[] {
  return [
    "CREATE INDEX audit_record_actor ON audit_record (actor_key, occur_us, leaf_index) WHERE leaf IS NOT NULL",
    "CREATE INDEX audit_record_action ON audit_record (action_key, occur_us, leaf_index) WHERE leaf IS NOT NULL",
    "CREATE INDEX audit_record_resource ON audit_record (resource_key, occur_us, leaf_index) WHERE leaf IS NOT NULL AND resource_key IS NOT NULL",
    "CREATE INDEX audit_record_trace ON audit_record (trace_key, occur_us, leaf_index) WHERE leaf IS NOT NULL AND trace_key IS NOT NULL",
    "CREATE INDEX audit_record_time ON audit_record (occur_us, leaf_index) WHERE leaf IS NOT NULL",
  ];
}

/**
 * SQLite writes every page that a commit touched, so indexes with keys in random order cost ten times the row itself. Its index
 * is built a block of leaves at a time, each block sorted and put at the end; see src/audit/search/sqlite-index.ts.
 */
function blockIndex(): readonly string[] {
  return [
    `CREATE TABLE audit_index (
    block INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key INTEGER NOT NULL,
    occur_us INTEGER NOT NULL,
    leaf_index INTEGER NOT NULL,
    PRIMARY KEY (block, kind, key, occur_us, leaf_index)
  ) WITHOUT ROWID`,
    `CREATE TABLE audit_index_block (
    block INTEGER NOT NULL PRIMARY KEY,
    min_occur_us INTEGER NOT NULL,
    max_occur_us INTEGER NOT NULL
  )`,
  ];
}
