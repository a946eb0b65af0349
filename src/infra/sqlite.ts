import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Database, SqlRow, SqlValue } from "./database.ts";
import { connectSqlite, type SqliteConnection } from "./sqlite-connection.ts";
import { closedError, isBusy, toCallerError, toStartError } from "./sqlite-error.ts";
import { createSqliteWriter } from "./sqlite-writer.ts";

export interface SqliteOptions {
  /** The file. Its directory is made (for this user only) when missing. */
  readonly path: string;
  /** How long to wait for another process that holds the file locked. Default 5000. */
  readonly busyTimeoutMs?: number;
}

const BUSY_RETRY_MS = 5;

/**
 * SQLite in this process: a log that is fsynced on each commit (WAL, synchronous=FULL), one connection that writes and one
 * that reads, so that a read sees what is committed and never waits.
 */
export function openSqlite(options: SqliteOptions): Database {
  const { path, busyTimeoutMs = 5000 } = options;
  // Each connection would get a memory of its own, and reads would never see a write.
  if (path === "" || path === ":memory:") throw new RangeError("the SQLite database must be a file");
  const [writing, reading] = connect(path, busyTimeoutMs);
  const writer = createSqliteWriter({ connection: writing, path, busyTimeoutMs });
  let closing: Promise<void> | undefined;

  async function query<Row extends SqlRow>(sql: string, params: readonly SqlValue[] = []): Promise<Row[]> {
    if (closing !== undefined) throw closedError(path);
    const deadline = performance.now() + busyTimeoutMs;
    for (;;) {
      try {
        // The caller knows what its statement returns.
        return reading.read(sql, params) as Row[];
      } catch (error) {
        // Readers do not wait for writers, but another process may be recovering the log or holding the file for itself.
        if (!isBusy(error) || performance.now() >= deadline) throw toCallerError(error, path);
        await delay(BUSY_RETRY_MS);
      }
    }
  }

  async function finish(): Promise<void> {
    await writer.close();
    reading.close();
    writing.close();
  }

  return {
    kind: "sqlite",
    shared: false,
    query,
    async write<Row extends SqlRow>(sql: string, params: readonly SqlValue[] = []): Promise<Row[]> {
      return (await writer.write(sql, params)) as Row[];
    },
    writeAll: (statements) => writer.writeAll(statements),
    transaction: (work) => writer.transaction(work),
    async ping() {
      await query("SELECT 1 AS one");
    },
    close() {
      closing ??= finish();
      return closing;
    },
  };
}

function connect(path: string, busyTimeoutMs: number): readonly [writing: SqliteConnection, reading: SqliteConnection] {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const writing = connectSqlite(path, { busyTimeoutMs });
    try {
      return [writing, connectSqlite(path, { busyTimeoutMs })];
    } catch (error) {
      writing.close();
      throw error;
    }
  } catch (error) {
    throw toStartError(error, path);
  }
}
