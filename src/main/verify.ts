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

/** What neither a damaged archive nor a wrong request explains. */
function inWords(error: unknown): unknown {
  if (error instanceof Failure) return new Failure(error.kind, error.reason, operatorText(error), { cause: error });
  const hasNoTable = error instanceof Error && /no such table|relation .* does not exist/.test(error.message);
  if (!hasNoTable) return error;
  return new Failure("precondition", "NO_AUDIT_LOG", "the database holds no audit log: Holdfast has never run on it", {
    cause: error,
  });
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
