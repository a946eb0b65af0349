import { parseCheckpoint } from "../audit/proof/checkpoint.ts";
import { type GivenCheckpoint, type VerifyAccount, verifyArchive } from "../audit/proof/offline-verify.ts";
import { accountJson, accountLines } from "../audit/proof/offline-verify-report.ts";
import { parsePublicKey } from "../audit/proof/signing-key.ts";
import { createSqlArchiveReader } from "../audit/proof/sql-verify.ts";
import { UsageError } from "../cli/usage.ts";
import type { VerifyOutcome, VerifyRequest } from "../cli/verify.ts";
import type { Config, DatabaseSettings } from "../config.ts";
import type { Database } from "../infra/database.ts";
import { Failure } from "../infra/failure.ts";
import { audit } from "../infra/migrations/0002-audit.ts";
import { operatorText } from "./start-failure.ts";

/** Verifies the audit archive of this configuration, beside a server that may be running on it. */
export async function verify({ database: settings }: Config, request: VerifyRequest): Promise<VerifyOutcome> {
  const checkpoints = request.checkpoints.map(readCheckpoint);
  const publicKey = request.publicKey === undefined ? undefined : parsePublicKey(request.publicKey);
  if (request.publicKey !== undefined && publicKey === undefined) {
    throw new UsageError("--public-key is no Ed25519 public key: wanted 32 bytes in base64, PEM, or a file of either");
  }
  await using parts = new AsyncDisposableStack();
  const database = parts.adopt(await open(settings), (it) => it.close());
  let account: VerifyAccount;
  try {
    account = await verifyArchive(createSqlArchiveReader(database), {
      ...{ checkpoints, publicKey },
      onProgress: (checked, size) => request.onProgress(checked, size),
    });
  } catch (error) {
    const lost = await lostTable(error, database);
    if (lost !== undefined) return lost;
    throw inWords(error);
  }
  return { sound: account.sound, lines: accountLines(account, publicKey), json: accountJson(account) };
}

function readCheckpoint({ file, text }: VerifyRequest["checkpoints"][number]): GivenCheckpoint {
  try {
    return { name: file, checkpoint: parseCheckpoint(text) };
  } catch (error) {
    throw new UsageError(`--checkpoint names ${file}, which ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** That Holdfast made the tables of the audit log once, and one is not there any more. */
async function lostTable(error: unknown, database: Pick<Database, "query">): Promise<VerifyOutcome | undefined> {
  if (!hasNoTable(error)) return undefined;
  let isMigrated: boolean;
  try {
    const rows = await database.query("SELECT version FROM holdfast_migration WHERE version = $1", [audit.version]);
    isMigrated = rows.length > 0;
  } catch (notMigrated) {
    if (!hasNoTable(notMigrated)) throw inWords(notMigrated);
    // Where that table was dropped as well, what is left of the others tells.
    isMigrated = await hasAnyTable(database);
  }
  if (!isMigrated) return undefined;
  const fault = `a table of the audit log was dropped: ${error.message}`;
  const conclusion = "The archive is NOT what it was: Holdfast has kept an audit log in this database.";
  const json = { sound: false, consistent: false, conclusion, fault_count: 1, faults: [fault] };
  return { sound: false, lines: [`DAMAGED ${fault}`, conclusion], json };
}

async function hasAnyTable(database: Pick<Database, "query">): Promise<boolean> {
  for (const table of ["audit_head", "audit_record", "audit_node", "audit_producer"]) {
    try {
      await database.query(`SELECT 1 FROM ${table} LIMIT 1`);
      return true;
    } catch (error) {
      if (!hasNoTable(error)) throw inWords(error);
    }
  }
  return false;
}

function hasNoTable(error: unknown): error is Error {
  return error instanceof Error && /no such table|relation .* does not exist/.test(error.message);
}

/** What neither a damaged archive nor a wrong request explains. */
function inWords(error: unknown): unknown {
  if (error instanceof Failure) return new Failure(error.kind, error.reason, operatorText(error), { cause: error });
  if (hasNoTable(error)) {
    return new Failure(
      "precondition",
      "NO_AUDIT_LOG",
      "the database holds no audit log: Holdfast has never run on it",
      {
        cause: error,
      },
    );
  }
  // What a database says of a statement, such as that it is not permitted.
  if (!(error instanceof Error && "code" in error && typeof error.code === "string")) return error;
  return new Failure("precondition", "NOT_READABLE", `the database says: ${error.message}`, { cause: error });
}

/** Loads the driver that is needed and not the other. */
async function open(settings: DatabaseSettings): Promise<Pick<Database, "kind" | "query" | "close">> {
  if (settings.kind === "sqlite") {
    const { openSqliteReader } = await import("../infra/sqlite-reader.ts");
    return openSqliteReader(settings.file);
  }
  const { openPostgres } = await import("../infra/postgres.ts");
  return openPostgres(settings);
}
