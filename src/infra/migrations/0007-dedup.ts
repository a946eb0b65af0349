import type { Migration } from "../migrations.ts";

/** Deduplication. Times are milliseconds since 1970 by the database's clock, or by the instance's own with SQLite. */
export const dedup: Migration = {
  version: 7,
  name: "dedup",
  sqlite: [
    ...tables({ text: "TEXT", blob: "BLOB", byKey: " WITHOUT ROWID" }),
    // The last token that was given out, of whatever claim: one that is forgotten takes none with it.
    "CREATE TABLE dedup_token (id BIGINT PRIMARY KEY, last BIGINT NOT NULL)",
    "INSERT INTO dedup_token (id, last) VALUES (1, 0)",
  ],
  postgres: [
    ...tables({ text: 'TEXT COLLATE "C"', blob: "BYTEA", byKey: "" }),
    // Not a row: those who take tokens at the same time must not wait for each other.
    "CREATE SEQUENCE dedup_token AS BIGINT",
  ],
};

interface Dialect {
  readonly text: string;
  readonly blob: string;
  /** The rows lie in the order of their key, without an index beside them. */
  readonly byKey: string;
}

function tables({ text, blob, byKey }: Dialect): readonly string[] {
  return [
    // generation: copies in Redis are believed while they have this number, and it is positive. closed_ms: when it last ceased to be.
    "CREATE TABLE dedup_head (id BIGINT PRIMARY KEY, generation BIGINT NOT NULL, closed_ms BIGINT NOT NULL)",
    "INSERT INTO dedup_head (id, generation, closed_ms) VALUES (1, 0, 0)",
    // kind: 1 a key, 2 a checksum, in hexadecimal. status: 1 in progress, 2 completed, 3 released. lease_ms: when the lease ends; 0
    // unless in progress. at_once: completed by its claim. result_bytes null: there is no result. copyable 0: it is about to be
    // forgotten, so that no copy of it may be made.
    `CREATE TABLE dedup_claim (
      namespace ${text} NOT NULL,
      kind BIGINT NOT NULL,
      id ${text} NOT NULL,
      token BIGINT NOT NULL,
      status BIGINT NOT NULL,
      owner ${text} NOT NULL,
      attempt BIGINT NOT NULL,
      ttl_ms BIGINT NOT NULL,
      claim_ms BIGINT NOT NULL,
      lease_ms BIGINT NOT NULL,
      complete_ms BIGINT,
      expire_ms BIGINT NOT NULL,
      request_id ${text} NOT NULL,
      request_meaning ${text} NOT NULL,
      at_once BIGINT NOT NULL,
      result_bytes BIGINT,
      copyable BIGINT NOT NULL,
      PRIMARY KEY (namespace, kind, id)
    )${byKey}`,
    // What is to be found by a filter. Nearly all claims are completed, so these are found by looking through all.
    "CREATE INDEX dedup_claim_open ON dedup_claim (namespace, kind, id, lease_ms, expire_ms) WHERE status = 1",
    "CREATE INDEX dedup_claim_owner ON dedup_claim (namespace, owner, kind, id)",
    "CREATE INDEX dedup_claim_expire ON dedup_claim (expire_ms)",
    // A serialized Value, by the token of the claim that has it. By itself, so that looking at claims does not read results.
    `CREATE TABLE dedup_result (token BIGINT PRIMARY KEY, value ${blob} NOT NULL)`,
  ];
}
