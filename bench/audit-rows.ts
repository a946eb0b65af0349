import { randomBytes } from "node:crypto";
import Sqlite from "better-sqlite3";
import { audit } from "../src/infra/migrations/0002-audit.ts";
import { sealedAt } from "./audit-records.ts";

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
/** Places in a row. */
export const COLUMN = {
  leafIndex: 0,
  producer: 1,
  sequence: 2,
  leafHash: 3,
  acceptUs: 4,
  occurUs: 5,
  trace: 10,
} as const;

export interface PreparedRow {
  /** As the server would write it, but for leaf_index and leaf_hash, which are still to be set. */
  readonly row: RowValue[];
  readonly leaf: Buffer;
}

export function prepareRow(producer: string, number: number, actor?: string): PreparedRow {
  const record = sealedAt(producer, number, actor);
  const keys = record.texts.keys();
  const leaf = Buffer.from(record.leaf);
  const row = [
    0,
    producer,
    record.sequence,
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
    leaf,
  ];
  return { row, leaf };
}
