import { existsSync } from "node:fs";
import Sqlite from "better-sqlite3";
import type { Database, SqlRow, SqlValue } from "./database.ts";
import { Failure } from "./failure.ts";
import { toPositional } from "./sql-text.ts";
import { toStartError } from "./sqlite-error.ts";

const BUSY_TIMEOUT_MS = 5_000;

/** An SQLite database that is only read, from the side: a server may be writing it, and nothing of it is changed. */
export function openSqliteReader(path: string): Pick<Database, "kind" | "query" | "close"> {
  if (!existsSync(path)) {
    throw new Failure("not_found", "SQL_UNAVAILABLE", `there is no SQLite database ${path}`, { metadata: { path } });
  }
  const db = asStartError(path, () => new Sqlite(path, { readonly: true, timeout: BUSY_TIMEOUT_MS }));
  return {
    kind: "sqlite",
    async query<Row extends SqlRow>(sql: string, params: readonly SqlValue[] = []): Promise<Row[]> {
      const { sql: text, order } = toPositional(sql);
      const bound = order === undefined ? params : order.map((index) => params[index] ?? null);
      // The caller knows what its statement returns.
      return asStartError(path, () => db.prepare<SqlValue[], SqlRow>(text).all(...bound)) as Row[];
    },
    async close() {
      db.close();
    },
  };
}

/** Whoever runs a command on the file is to know which it is. */
function asStartError<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw toStartError(error, path);
  }
}
