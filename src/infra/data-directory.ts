import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import Sqlite from "better-sqlite3";
import { Failure, UnavailableError } from "./failure.ts";

export interface DataDirectoryLock extends Disposable {
  readonly directory: string;
  release(): void;
}

/** Locks that were not released. Without a reference the collector would close them, and nobody would notice. */
const held = new Set<Sqlite.Database>();

/**
 * Makes the directory (for this user only) when it is missing, and takes it for this process. Two servers on one directory
 * would each hold half of the truth. The lock is the operating system's, so it ends with the process, however that ends.
 */
export function lockDataDirectory(dir: string): DataDirectoryLock {
  const directory = resolve(dir);
  // Not the locked file itself: opening and closing that one would drop the lock, as POSIX has it.
  const pidFile = join(directory, "holdfast.pid");
  const db = openLockFile(directory);
  try {
    db.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    db.close();
    if (error instanceof Sqlite.SqliteError && error.code.startsWith("SQLITE_BUSY")) throw taken(directory, pidFile);
    throw unusable(directory, error);
  }
  try {
    writeFileSync(pidFile, `${process.pid}\n`);
  } catch (error) {
    db.close();
    throw unusable(directory, error);
  }
  held.add(db);
  const release = () => {
    held.delete(db);
    db.close();
  };
  return { directory, release, [Symbol.dispose]: release };
}

function openLockFile(directory: string): Sqlite.Database {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    return new Sqlite(join(directory, "lock"), { timeout: 0 });
  } catch (error) {
    throw unusable(directory, error);
  }
}

function taken(directory: string, pidFile: string): Failure {
  const pid = readPid(pidFile);
  const holder = pid === undefined ? "another process" : `process ${pid}`;
  return new Failure(
    "precondition",
    "DATA_DIRECTORY_IN_USE",
    `the data directory ${directory} is in use by ${holder}: stop it, or give this one a directory of its own`,
    { metadata: { directory, ...(pid === undefined ? {} : { pid }) } },
  );
}

// The holder writes it just after it took the lock, so for a moment it may be missing or of the holder before.
function readPid(pidFile: string): string | undefined {
  try {
    return /^\d+/.exec(readFileSync(pidFile, "utf8"))?.[0];
  } catch {
    return undefined;
  }
}

function unusable(directory: string, error: unknown): UnavailableError {
  const why = error instanceof Error ? error.message : String(error);
  return new UnavailableError("DATA_DIRECTORY_UNAVAILABLE", `the data directory ${directory} cannot be used: ${why}`, {
    cause: error,
  });
}
