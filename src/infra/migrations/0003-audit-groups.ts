import type { Migration } from "../migrations.ts";

/**
 * Groups of consumers of the audit log: how far each has got, what is with whom, and what was given up. A record of the archive
 * is, for a group: not looked at yet (from next_leaf on), a delivery, a dead letter, or done (below next_leaf and neither).
 * Times are milliseconds since 1970.
 */
export const auditGroups: Migration = {
  version: 3,
  name: "audit-groups",
  sqlite: tables({ text: "TEXT", blob: "BLOB", clustered: " WITHOUT ROWID" }),
  postgres: tables({ text: 'TEXT COLLATE "C"', blob: "BYTEA", clustered: "" }),
};

function tables({ text, blob, clustered }: Record<"text" | "blob" | "clustered", string>): readonly string[] {
  return [
    // filter: a serialized AuditFilter. last_token: the number of the last claim; each claim has its own.
    `CREATE TABLE audit_group (
      name ${text} NOT NULL PRIMARY KEY,
      filter ${blob} NOT NULL,
      next_leaf BIGINT NOT NULL,
      last_token BIGINT NOT NULL,
      created_ms BIGINT NOT NULL
    )`,
    // What is not settled. token: the claim that made the latest delivery; made negative when the consumer gave it back, so that
    // nothing it says about it counts any more. holder: the stream that has it, null while it waits. due_ms: when anyone may
    // take it: its deadline while it is held, the end of its delay while it waits.
    `CREATE TABLE audit_delivery (
      group_name ${text} NOT NULL,
      leaf_index BIGINT NOT NULL,
      token BIGINT NOT NULL,
      attempt BIGINT NOT NULL,
      max_deliveries BIGINT NOT NULL,
      consumer ${text} NOT NULL,
      holder ${text},
      due_ms BIGINT NOT NULL,
      last_error ${text} NOT NULL,
      PRIMARY KEY (group_name, leaf_index)
    )${clustered}`,
    "CREATE INDEX audit_delivery_due ON audit_delivery (group_name, due_ms, leaf_index)",
    `CREATE TABLE audit_dead_letter (
      group_name ${text} NOT NULL,
      leaf_index BIGINT NOT NULL,
      deliveries BIGINT NOT NULL,
      last_error ${text} NOT NULL,
      last_consumer ${text} NOT NULL,
      dead_ms BIGINT NOT NULL,
      PRIMARY KEY (group_name, leaf_index)
    )${clustered}`,
    "CREATE INDEX audit_dead_letter_oldest ON audit_dead_letter (group_name, dead_ms, leaf_index)",
    // owner: the stream that has the name now; null when it ended. seen_ms: when that stream was last known to be open.
    // active_ms: when it last received or settled something.
    `CREATE TABLE audit_consumer (
      group_name ${text} NOT NULL,
      name ${text} NOT NULL,
      owner ${text},
      seen_ms BIGINT NOT NULL,
      active_ms BIGINT,
      PRIMARY KEY (group_name, name)
    )`,
  ];
}
