import { randomBytes } from "node:crypto";
import Sqlite from "better-sqlite3";
import { searchKeys } from "../src/audit/keys.ts";
import { audit } from "../src/infra/migrations/0002-audit.ts";
import { BATCH_RECORDS } from "./audit-batch.ts";
import { FIRST_SEQUENCE, sealedAt } from "./audit-records.ts";

/** How a table of records is made: as the server does, with its indexes; or with nothing but the columns and the primary key. */
export type Schema = "server" | "bare";

export const COLUMNS =
  "leaf_index, producer, sequence, leaf_hash, accept_us, occur_us, actor_key, action_key, resource_key, resource_type_key, " +
  "trace_key, service_key, outcome, status, leaf";
const TABLE = /^\s*CREATE TABLE (?<name>\w+)/;
const INDEX = /^\s*CREATE (?:UNIQUE )?INDEX \w+ ON (?<name>\w+)/;

/** A database on which a commit is as durable as the server's, and costs the same. */
export function openRows(path: string, schema: Schema): Sqlite.Database {
  const db = new Sqlite(path);
  db.pragma("journal_mode = WAL");
  db.pragma("synchronous = FULL");
  db.pragma("wal_autocheckpoint = 4096");
  const [{ n } = { n: 0 }] = db.prepare<[], { n: number }>("SELECT count(*) AS n FROM sqlite_master").all();
  if (n > 0) return db;
  const isOf = (pattern: RegExp) => (sql: string) => pattern.exec(sql)?.groups?.name === "audit_record";
  const statements = audit.sqlite.filter(isOf(TABLE));
  if (schema === "server") statements.push(...audit.sqlite.filter(isOf(INDEX)));
  for (const sql of statements) db.exec(sql);
  return db;
}

export function insertRow(db: Sqlite.Database): Sqlite.Statement<RowValue[]> {
  return db.prepare<RowValue[]>(`INSERT INTO audit_record (${COLUMNS}) VALUES (${COLUMNS.replaceAll(/\w+/g, "?")})`);
}

export type RowValue = string | number | Buffer | null;
export const LEAF_INDEX = 0;
export const PRODUCER = 1;
export const SEQUENCE = 2;

/** Rows as the server would write them, of which leaf_index and sequence are still to be set. */
export function preparedRows(count: number, producers: readonly string[]): RowValue[][] {
  return Array.from({ length: count }, (_, number) => {
    const producer = producers[Math.floor(number / BATCH_RECORDS) % producers.length] ?? "";
    const record = sealedAt(producer, FIRST_SEQUENCE, number);
    const keys = searchKeys(record);
    return [
      0,
      producer,
      0,
      randomBytes(32),
      record.acceptUs,
      record.occurUs,
      keys.actor,
      keys.action,
      keys.resource ?? null,
      keys.resourceType ?? null,
      keys.trace ?? null,
      keys.service ?? null,
      record.outcome,
      1,
      Buffer.from(record.leaf),
    ];
  });
}
