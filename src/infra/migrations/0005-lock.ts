import type { Migration } from "../migrations.ts";

/** Locks. Times are milliseconds since 1970 by the database's clock, or by the instance's own with SQLite. */
export const lock: Migration = {
  version: 5,
  name: "lock",
  sqlite: tables("TEXT"),
  postgres: tables('TEXT COLLATE "C"'),
};

function tables(text: string): readonly string[] {
  return [
    // Who decides (mode; empty: nobody ever did), in which epoch, and since which. Whoever begins to decide raises the epoch and grants
    // nothing before quiet_until_ms, when the last lease of who decided before is over: longest_ms is the longest lease that was
    // granted since. floor: no smaller token is granted, because records that knew of it are gone.
    `CREATE TABLE lock_head (
      id BIGINT PRIMARY KEY,
      epoch BIGINT NOT NULL,
      since_epoch BIGINT NOT NULL,
      mode ${text} NOT NULL,
      longest_ms BIGINT NOT NULL,
      quiet_until_ms BIGINT NOT NULL,
      floor BIGINT NOT NULL
    )`,
    "INSERT INTO lock_head (id, epoch, since_epoch, mode, longest_ms, quiet_until_ms, floor) VALUES (1, 1, 1, '', 0, 0, 0)",
    // The newest grant of each lock. ended: released or forced, empty while it was not. stream_id: the Hold that keeps it.
    // streak, rival: for how many grants in a row the same instance has had it, and which other one waits.
    `CREATE TABLE lock_record (
      name ${text} NOT NULL PRIMARY KEY,
      token BIGINT NOT NULL,
      owner ${text} NOT NULL,
      purpose ${text} NOT NULL,
      caller ${text} NOT NULL,
      instance_id ${text} NOT NULL,
      stream_id ${text} NOT NULL,
      request_id ${text} NOT NULL,
      request_meaning ${text} NOT NULL,
      ttl_ms BIGINT NOT NULL,
      acquire_ms BIGINT NOT NULL,
      expire_ms BIGINT NOT NULL,
      renewals BIGINT NOT NULL,
      ended ${text} NOT NULL,
      ended_ms BIGINT NOT NULL,
      streak BIGINT NOT NULL,
      wanted_until_ms BIGINT NOT NULL,
      rival ${text} NOT NULL,
      rival_until_ms BIGINT NOT NULL
    )`,
    "CREATE INDEX lock_record_held ON lock_record (name) WHERE ended = ''",
    "CREATE INDEX lock_record_expire ON lock_record (expire_ms)",
    // Attempts that took a lock, and what else has to be remembered under a request id (note), until forget_ms.
    `CREATE TABLE lock_attempt (
      name ${text} NOT NULL,
      request_id ${text} NOT NULL,
      meaning ${text} NOT NULL,
      note ${text} NOT NULL,
      forget_ms BIGINT NOT NULL,
      PRIMARY KEY (name, request_id)
    )`,
    "CREATE INDEX lock_attempt_forget ON lock_attempt (forget_ms)",
  ];
}
