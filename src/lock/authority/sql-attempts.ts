import type { Database, SqlSession } from "../../infra/database.ts";
import { bigintArray, textArray } from "../../infra/postgres-array.ts";

/** A request id, and the lock that the request is about. */
export interface AttemptKey {
  readonly name: string;
  readonly requestId: string;
}

/** What is remembered under a request id. */
export interface Attempt extends AttemptKey {
  readonly meaning: string;
  readonly note: string;
  readonly forgetMs: number;
}

type AttemptRow = { name: string; request_id: string; meaning: string; note: string; forget_ms: number };

const COLUMNS = "name, request_id, meaning, note, forget_ms";
const OR_CHANGE = `ON CONFLICT (name, request_id) DO UPDATE
  SET meaning = excluded.meaning, note = excluded.note, forget_ms = excluded.forget_ms`;

const SQL = {
  readOne: `SELECT ${COLUMNS} FROM lock_attempt WHERE name = $1 AND request_id = $2`,
  readAll: `SELECT ${COLUMNS} FROM unnest($1::text[], $2::text[]) AS given (name, request_id)
    JOIN lock_attempt USING (name, request_id)`,
  keepOne: `INSERT INTO lock_attempt (${COLUMNS}) VALUES ($1, $2, $3, $4, $5) ${OR_CHANGE}`,
  keepAll: `INSERT INTO lock_attempt (${COLUMNS})
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) ${OR_CHANGE}`,
  forgetOne: "DELETE FROM lock_attempt WHERE name = $1 AND request_id = $2",
} as const;

export async function readAttempts(
  kind: Database["kind"],
  tx: SqlSession,
  keys: readonly AttemptKey[],
): Promise<readonly Attempt[]> {
  if (keys.length === 0) return [];
  const rows: AttemptRow[] = [];
  if (kind === "sqlite") {
    for (const { name, requestId } of keys) rows.push(...(await tx.query<AttemptRow>(SQL.readOne, [name, requestId])));
  } else {
    const all = [textArray(keys.map(({ name }) => name)), textArray(keys.map(({ requestId }) => requestId))];
    rows.push(...(await tx.query<AttemptRow>(SQL.readAll, all)));
  }
  return rows.map(({ name, request_id, meaning, note, forget_ms }) => ({
    ...{ name, requestId: request_id, meaning, note, forgetMs: forget_ms },
  }));
}

export async function keepAttempts(kind: Database["kind"], tx: SqlSession, kept: readonly Attempt[]): Promise<void> {
  if (kept.length === 0) return;
  if (kind === "sqlite") {
    const rows = kept.map(({ name, requestId, meaning, note, forgetMs }) => [name, requestId, meaning, note, forgetMs]);
    await tx.each(SQL.keepOne, rows);
    return;
  }
  await tx.query(SQL.keepAll, [
    textArray(kept.map(({ name }) => name)),
    textArray(kept.map(({ requestId }) => requestId)),
    textArray(kept.map(({ meaning }) => meaning)),
    textArray(kept.map(({ note }) => note)),
    bigintArray(kept.map(({ forgetMs }) => forgetMs)),
  ]);
}

export async function forgetAttempts(tx: SqlSession, keys: readonly AttemptKey[]): Promise<void> {
  if (keys.length === 0) return;
  await tx.each(
    SQL.forgetOne,
    keys.map(({ name, requestId }) => [name, requestId]),
  );
}
