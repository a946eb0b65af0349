import type { Migration } from "../migrations.ts";

/** Fencing. Times are milliseconds since 1970 by the database's clock. */
export const fence: Migration = {
  version: 6,
  name: "fence",
  sqlite: tables("TEXT"),
  postgres: tables('TEXT COLLATE "C"'),
};

function tables(text: string): readonly string[] {
  return [
    // The newest token under which something was written, by lock; 0: none yet. seen_ms: when a write last came, to the hour.
    `CREATE TABLE fence (
      lock ${text} NOT NULL PRIMARY KEY,
      token BIGINT NOT NULL,
      seen_ms BIGINT NOT NULL
    )`,
    "CREATE INDEX fence_seen ON fence (seen_ms)",
  ];
}
