import Sqlite from "better-sqlite3";
import { UnavailableError } from "./failure.ts";

export function isBusy(error: unknown): boolean {
  return error instanceof Sqlite.SqliteError && error.code.startsWith("SQLITE_BUSY");
}

export function isDiskFull(error: unknown): boolean {
  return error instanceof Sqlite.SqliteError && error.code === "SQLITE_FULL";
}

// Troubles of the file, the disk or the machine, in words an operator can act on. A prefix covers the extended codes.
const troubles: readonly (readonly [code: string, words: string])[] = [
  ["SQLITE_FULL", "the disk is full"],
  ["SQLITE_BUSY", "another process holds it locked"],
  ["SQLITE_LOCKED", "it is locked"],
  ["SQLITE_IOERR", "reading or writing the disk failed"],
  ["SQLITE_CANTOPEN", "it cannot be opened"],
  ["SQLITE_READONLY", "it cannot be written"],
  ["SQLITE_PERM", "access is not permitted"],
  ["SQLITE_NOTADB", "the file is not an SQLite database"],
  ["SQLITE_CORRUPT", "the file is damaged"],
  ["SQLITE_NOMEM", "memory has run out"],
  ["SQLITE_PROTOCOL", "locking it failed"],
];

/**
 * What is thrown to the caller: UnavailableError for troubles of the file, the error itself for a wrong statement. Where the
 * file is stands in the cause, which is for the log.
 */
export function toCallerError(error: unknown, path: string): unknown {
  return translate(error, "the SQLite database", path);
}

/** The same for whoever starts the server, who is to know which file it is. */
export function toStartError(error: unknown, path: string): unknown {
  return translate(error, `the SQLite database ${path}`, path);
}

function translate(error: unknown, database: string, path: string): unknown {
  if (!(error instanceof Sqlite.SqliteError)) return error;
  const trouble = troubles.find(([code]) => error.code.startsWith(code));
  if (trouble === undefined) return error;
  return new UnavailableError("SQL_UNAVAILABLE", `${database} is not usable: ${trouble[1]}`, {
    metadata: { code: error.code },
    cause: new Error(`${path}: ${error.message}`, { cause: error }),
  });
}

export function closedError(path: string): UnavailableError {
  return new UnavailableError("SQL_UNAVAILABLE", "the SQLite database is closed", { cause: new Error(path) });
}
