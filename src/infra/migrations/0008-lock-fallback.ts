import type { Migration } from "../migrations.ts";

/** A fallback for who decides about locks. Times are milliseconds since 1970 by the database's clock. */
export const lockFallback: Migration = {
  version: 8,
  name: "lock-fallback",
  sqlite: tables("TEXT"),
  postgres: tables('TEXT COLLATE "C"'),
};

function tables(text: string): readonly string[] {
  return [
    // Until when leases may last that who decides now keeps outside of SQL: announced ahead, before they are granted. 0: not announced so.
    "ALTER TABLE lock_head ADD COLUMN busy_until_ms BIGINT NOT NULL DEFAULT 0",
    // Instances that do not see the authority that has a fallback, and when each of them said so last.
    `CREATE TABLE lock_complaint (instance_id ${text} NOT NULL PRIMARY KEY, complain_ms BIGINT NOT NULL)`,
  ];
}
