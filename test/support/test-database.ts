import type { Database } from "../../src/infra/database.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";

export const SQL_KINDS = ["sqlite", "postgres"] as const;

/** `where`: the file, or the url. */
export function openTestDatabase(kind: (typeof SQL_KINDS)[number], where: string): Database {
  if (kind === "sqlite") return openSqlite({ path: where });
  return openPostgres({ url: where, poolSize: 4, statementTimeoutMs: 20_000, connectTimeoutMs: 20_000 });
}
