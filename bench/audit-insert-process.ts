import { BATCH_RECORDS } from "./audit-batch.ts";
import { FIRST_SEQUENCE } from "./audit-records.ts";
import { COLUMN, insertRow, openRows, prepareRow, type Schema } from "./audit-rows.ts";

/**
 * `node audit-insert-process.ts '{"path":...}'`: the baseline of the archive. better-sqlite3 inserts the rows that the server makes
 * of the records, prepared beforehand, and does nothing else: nothing is received, checked, hashed or indexed for searches.
 */
export interface InsertOrder {
  readonly path: string;
  readonly schema: Schema;
  readonly records: number;
}

export interface InsertResult {
  readonly records: number;
  readonly seconds: number;
  /** Processor time of this process. */
  readonly cpuMs: number;
}

const TRANSACTION = 500;
const PREPARED = 8_000;
const PRODUCERS = 4;

function insert({ path, schema, records }: InsertOrder): InsertResult {
  const db = openRows(path, schema);
  const statement = insertRow(db);
  const [{ size } = { size: 0 }] = db
    .prepare<[], { size: number }>("SELECT coalesce(max(leaf_index) + 1, 0) AS size FROM audit_record")
    .all();
  const rows = Array.from(
    { length: PREPARED },
    (_, number) => prepareRow(`bench-${Math.floor(number / BATCH_RECORDS) % PRODUCERS}`, number).row,
  );
  let next = size;
  const commit = db.transaction((count: number) => {
    for (let i = 0; i < count; i++, next++) {
      const row = rows[next % PREPARED] ?? [];
      row[COLUMN.leafIndex] = next;
      row[COLUMN.sequence] = FIRST_SEQUENCE + next;
      statement.run(...row);
    }
  });
  const before = process.cpuUsage();
  const begun = performance.now();
  for (let left = records; left > 0; left -= TRANSACTION) commit.immediate(Math.min(TRANSACTION, left));
  const seconds = (performance.now() - begun) / 1000;
  const { user, system } = process.cpuUsage(before);
  db.close();
  return { records, seconds, cpuMs: (user + system) / 1000 };
}

const result = insert(JSON.parse(process.argv[2] ?? "{}") as InsertOrder);
process.stdout.write(`${JSON.stringify(result)}\n`);
