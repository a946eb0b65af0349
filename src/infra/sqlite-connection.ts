import Sqlite from "better-sqlite3";
import { LRUCache } from "lru-cache";
import type { SqlRow, SqlValue } from "./database.ts";
import { toPositional } from "./sql-text.ts";
import { isBusy } from "./sqlite-error.ts";

/** One SQLite connection and its prepared statements. Everything here is synchronous: SQLite runs in this very thread. */
export interface SqliteConnection {
  readonly inTransaction: boolean;
  /** Runs one statement and returns its rows, if it has any. */
  run(sql: string, params: readonly SqlValue[]): SqlRow[];
  /** Runs one statement for each row of parameters. */
  runEach(sql: string, rows: readonly (readonly SqlValue[])[]): void;
  /** Like run, and refuses a statement that would change something. */
  read(sql: string, params: readonly SqlValue[]): SqlRow[];
  begin(): void;
  commit(): void;
  rollback(): void;
  /** Runs `work` so that a throw undoes what it did and nothing else of the transaction. */
  within<T>(work: () => T): T;
  close(): void;
}

interface Prepared {
  readonly statement: Sqlite.Statement<SqlValue[], SqlRow>;
  readonly returnsRows: boolean;
  readonly order: readonly number[] | undefined;
  readonly count: number;
}

// Statements are fixed texts in the code, so this is a bound against variable ones (lists), not a budget.
const PREPARED_STATEMENTS = 512;

// Checkpoint each 16 MiB of log instead of 4: it is the one pause a writer sees, and fewer are cheaper in total.
const CHECKPOINT_PAGES = 4096;
const LOG_KEPT_BYTES = 64 * 1024 * 1024;
// A quarter of what better-sqlite3 is built with. It holds the inner pages of some millions of rows; the outer ones are in the
// system's cache as well, which does not count for this process and is given up when others need it.
const CACHE_KIB = 4096;

export function connectSqlite(path: string, options: { busyTimeoutMs: number }): SqliteConnection {
  const db = new Sqlite(path, { timeout: options.busyTimeoutMs });
  try {
    configure(db, options.busyTimeoutMs);
  } catch (error) {
    db.close();
    throw error;
  }
  const prepared = new LRUCache<string, Prepared>({ max: PREPARED_STATEMENTS });
  const control = {
    begin: db.prepare("BEGIN IMMEDIATE"),
    commit: db.prepare("COMMIT"),
    rollback: db.prepare("ROLLBACK"),
    savepoint: db.prepare("SAVEPOINT part"),
    release: db.prepare("RELEASE part"),
    rollbackTo: db.prepare("ROLLBACK TO part"),
  };

  function prepare(sql: string): Prepared {
    const known = prepared.get(sql);
    if (known !== undefined) return known;
    const text = toPositional(sql);
    const statement = db.prepare<SqlValue[], SqlRow>(text.sql);
    const fresh: Prepared = { statement, returnsRows: statement.reader, order: text.order, count: text.count };
    prepared.set(sql, fresh);
    return fresh;
  }

  function execute(ready: Prepared, params: readonly SqlValue[]): SqlRow[] {
    const { statement, returnsRows, order, count } = ready;
    if (params.length !== count) throw new RangeError(`${params.length} parameters given, ${count} wanted`);
    const bound = order === undefined ? params : order.map((index) => params[index] ?? null);
    if (returnsRows) return statement.all(...bound);
    statement.run(...bound);
    return [];
  }

  return {
    get inTransaction() {
      return db.inTransaction;
    },
    run: (sql, params) => execute(prepare(sql), params),
    runEach(sql, rows) {
      const ready = prepare(sql);
      for (const params of rows) execute(ready, params);
    },
    read(sql, params) {
      const ready = prepare(sql);
      if (!ready.statement.readonly) throw new Error(`query() only reads; use write() for: ${sql}`);
      return execute(ready, params);
    },
    begin() {
      if (db.inTransaction) control.rollback.run();
      control.begin.run();
    },
    commit: () => void control.commit.run(),
    rollback() {
      // Some errors (a full disk) have ended the transaction already.
      if (!db.inTransaction) return;
      try {
        control.rollback.run();
      } catch {
        // The error that led here is the one worth reporting; the next begin tries again.
      }
    },
    within(work) {
      control.savepoint.run();
      try {
        const result = work();
        control.release.run();
        return result;
      } catch (error) {
        if (db.inTransaction) {
          control.rollbackTo.run();
          control.release.run();
        }
        throw error;
      }
    },
    close: () => void db.close(),
  };
}

function configure(db: Sqlite.Database, busyTimeoutMs: number): void {
  // Switching to WAL does not wait for others by itself, and only the first opener of a new file has to switch.
  const deadline = performance.now() + busyTimeoutMs;
  for (;;) {
    try {
      db.pragma("journal_mode = WAL");
      break;
    } catch (error) {
      if (!isBusy(error) || performance.now() >= deadline) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
  db.pragma("synchronous = FULL");
  db.pragma(`wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
  db.pragma(`journal_size_limit = ${LOG_KEPT_BYTES}`);
  db.pragma(`cache_size = -${CACHE_KIB}`);
  db.pragma("foreign_keys = ON");
  // From here on waiting for a lock is done by retrying, so that the thread goes on serving meanwhile.
  db.pragma("busy_timeout = 0");
}
