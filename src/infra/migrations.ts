import { setTimeout as delay } from "node:timers/promises";
import type { Database, SqlSession } from "./database.ts";
import { Failure, UnavailableError } from "./failure.ts";

/** One step of the schema. Applied once, in the order of versions, all or nothing; never edited after a release. */
export interface Migration {
  readonly version: number;
  readonly name: string;
  /** One statement each. */
  readonly sqlite: readonly string[];
  readonly postgres: readonly string[];
}

// Any number will do, as long as nobody else who uses the same Postgres takes it: "holdfast" in ASCII, cut to fit.
const ADVISORY_LOCK = 0x686f6c646661;
const LOCK_RETRY_MS = 50;
const LOCK_WAIT_MS = 5 * 60_000;

const createTable = `CREATE TABLE IF NOT EXISTS holdfast_migration (
  version BIGINT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  applied_at BIGINT NOT NULL
)`;

/**
 * Brings the schema up to date. Safe when several instances start at once: one applies, the others wait for it. Refuses a
 * schema that a newer Holdfast has made, because this one would not know what it must not break.
 */
export async function migrate(database: Database, migrations: readonly Migration[]): Promise<void> {
  const wanted = inOrder(migrations);
  const deadline = performance.now() + LOCK_WAIT_MS;
  for (;;) {
    const outcome = await database.transaction((tx) => applyNext(database.kind, tx, wanted));
    if (outcome === "up to date") return;
    if (outcome === "applied") continue;
    if (performance.now() >= deadline) {
      throw new UnavailableError(
        "SQL_UNAVAILABLE",
        "another instance has been migrating the database for five minutes",
      );
    }
    await delay(LOCK_RETRY_MS);
  }
}

async function applyNext(
  kind: Database["kind"],
  tx: SqlSession,
  wanted: readonly Migration[],
): Promise<"up to date" | "applied" | "locked"> {
  // In SQLite the transaction itself keeps the others out. In Postgres we ask rather than wait: waiting would run into the
  // statement timeout while another instance builds a large index.
  if (kind === "postgres") {
    const [row] = await tx.query<{ locked: number }>("SELECT pg_try_advisory_xact_lock($1) AS locked", [ADVISORY_LOCK]);
    if (row?.locked !== 1) return "locked";
  }
  await tx.query(createTable);
  const applied = await tx.query<{ version: number; name: string }>(
    "SELECT version, name FROM holdfast_migration ORDER BY version",
  );
  const next = firstMissing(applied, wanted);
  if (next === undefined) return "up to date";
  for (const sql of next[kind]) await tx.query(sql);
  await tx.query("INSERT INTO holdfast_migration (version, name, applied_at) VALUES ($1, $2, $3)", [
    next.version,
    next.name,
    Date.now(),
  ]);
  return "applied";
}

function firstMissing(
  applied: readonly { version: number; name: string }[],
  wanted: readonly Migration[],
): Migration | undefined {
  const newestKnown = wanted.at(-1)?.version ?? 0;
  const newestApplied = applied.at(-1)?.version ?? 0;
  if (newestApplied > newestKnown) {
    throw new Failure(
      "precondition",
      "SCHEMA_FROM_THE_FUTURE",
      `the database schema is at version ${newestApplied}, and this Holdfast knows versions up to ${newestKnown}: ` +
        "run the newer Holdfast that made it, or restore an older database",
      { metadata: { database_version: String(newestApplied), known_version: String(newestKnown) } },
    );
  }
  const names = new Map(applied.map((row) => [row.version, row.name]));
  for (const migration of wanted) {
    const name = names.get(migration.version);
    if (name !== undefined && name !== migration.name) {
      throw new Failure(
        "precondition",
        "SCHEMA_DIVERGED",
        `migration ${migration.version} of the database is "${name}", but this Holdfast calls it "${migration.name}": ` +
          "the database was made by a build that is no ancestor of this one",
        { metadata: { version: String(migration.version) } },
      );
    }
  }
  return wanted.find((migration) => !names.has(migration.version));
}

function inOrder(migrations: readonly Migration[]): readonly Migration[] {
  const sorted = migrations.toSorted((a, b) => a.version - b.version);
  for (const [index, migration] of sorted.entries()) {
    if (!Number.isSafeInteger(migration.version) || migration.version < 1) {
      throw new Error(`migration "${migration.name}" needs a version of 1 or more, not ${migration.version}`);
    }
    if (sorted[index + 1]?.version === migration.version) {
      throw new Error(`two migrations have version ${migration.version}`);
    }
  }
  return sorted;
}
