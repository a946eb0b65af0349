import type { Database, SqlSession, SqlValue } from "../../infra/database.ts";
import { bigintArray, textArray } from "../../infra/postgres-array.ts";
import { type Claim, type ClaimId, textOf } from "../record/claim.ts";
import { type ClaimRow, COLUMNS, claimOf, keyValues, valuesOf } from "./sql-row.ts";

/** Larger results are read by themselves, so that many callers at once do not fill the memory with them. */
const SMALL_RESULT = 16 * 1024;

const OF = "namespace = $1 AND kind = $2 AND id = $3";
const LIST = COLUMNS.join(", ");
const FIELDS = COLUMNS.map((column) => `c.${column}`).join(", ");
const SMALL_VALUE = `CASE WHEN c.result_bytes <= ${SMALL_RESULT}
  THEN (SELECT r.value FROM dedup_result r WHERE r.token = c.token) END AS value`;
const NO_VALUE = "NULL AS value";
const WANTED = `FROM unnest($1::text[], $2::bigint[], $3::text[]) AS wanted (namespace, kind, id)
  JOIN dedup_claim c ON c.namespace = wanted.namespace AND c.kind = wanted.kind AND c.id = wanted.id`;
const PUT = `INSERT INTO dedup_claim (${LIST}) VALUES (${COLUMNS.map((_, at) => `$${at + 1}`).join(", ")})
  ON CONFLICT (namespace, kind, id) DO UPDATE SET ${COLUMNS.slice(3)
    .map((column) => `${column} = excluded.${column}`)
    .join(", ")}`;
const REMOVE = `DELETE FROM dedup_claim WHERE ${OF}`;
const PUT_RESULT = "INSERT INTO dedup_result (token, value) VALUES ($1, $2)";
const REMOVE_RESULT = "DELETE FROM dedup_result WHERE token = $1";
const RESULT = "SELECT value FROM dedup_result WHERE token = $1";

type ValueRow = ClaimRow & { value: Uint8Array | null };

export interface Held {
  readonly claim: Claim;
  /** Undefined: there is none, or it has to be read by itself. */
  readonly value: Uint8Array | undefined;
}

type Reading = Pick<SqlSession, "query">;

/**
 * What is kept of these, by `textOf`. "hold" is for who may change them: in Postgres nobody else does until the transaction ends. Rows
 * are held in their order, so that two who want the same never wait for each other.
 */
export async function readClaims(
  kind: Database["kind"],
  session: Reading,
  ids: readonly ClaimId[],
  purpose: "look" | "hold",
): Promise<Map<string, Held>> {
  const value = purpose === "hold" ? NO_VALUE : SMALL_VALUE;
  const rows = kind === "postgres" ? await readMany(session, ids, purpose, value) : await readEach(session, ids, value);
  return new Map(
    rows.map((row) => {
      const claim = claimOf(row);
      return [textOf(claim.id), { claim, value: row.value ?? undefined }];
    }),
  );
}

function readMany(session: Reading, ids: readonly ClaimId[], purpose: "look" | "hold", value: string) {
  const end = purpose === "hold" ? "ORDER BY c.namespace, c.kind, c.id FOR UPDATE OF c" : "";
  return session.query<ValueRow>(`SELECT ${FIELDS}, ${value} ${WANTED} ${end}`, arraysOf(ids));
}

/** In SQLite, which answers at once, one prepared statement for each is the fastest. */
async function readEach(session: Reading, ids: readonly ClaimId[], value: string): Promise<ValueRow[]> {
  const sql = `SELECT ${FIELDS}, ${value} FROM dedup_claim c WHERE ${OF}`;
  const found: ValueRow[] = [];
  for (const id of ids) found.push(...(await session.query<ValueRow>(sql, keyValues(id))));
  return found;
}

function arraysOf(ids: readonly ClaimId[]): SqlValue[] {
  const keys = ids.map(keyValues);
  return [
    textArray(keys.map(([namespace]) => namespace)),
    bigintArray(keys.map(([, kind]) => kind)),
    textArray(keys.map(([, , id]) => id)),
  ];
}

export async function readResult(session: Reading, token: number): Promise<Uint8Array | undefined> {
  const [row] = await session.query<{ value: Uint8Array }>(RESULT, [token]);
  return row?.value;
}

const AT = (column: (typeof COLUMNS)[number]) => COLUMNS.indexOf(column);
const TEXTS = new Set([AT("namespace"), AT("id"), AT("owner"), AT("request_id"), AT("request_meaning")]);
const ARRAYS = COLUMNS.map((_, at) => `$${at + 1}::${TEXTS.has(at) ? "text" : "bigint"}[]`).join(", ");
const INSERT_NEW = `INSERT INTO dedup_claim (${LIST})
  SELECT ${LIST} FROM unnest(${ARRAYS}) AS given (${LIST}) ORDER BY namespace, kind, id
  ON CONFLICT (namespace, kind, id) DO NOTHING RETURNING token`;

/**
 * Claims that were not there when it was looked. Returns those that somebody else was faster to make; of these nothing is written. Only
 * Postgres has others who write at the same time.
 */
export async function insertClaims(tx: SqlSession, claims: readonly Claim[]): Promise<readonly Claim[]> {
  if (claims.length === 0) return [];
  const rows = claims.map(valuesOf);
  const arrays = COLUMNS.map((_, at) => arrayOf(rows.map((row) => row[at] ?? null)));
  const written = await tx.query<{ token: number }>(INSERT_NEW, arrays);
  if (written.length === claims.length) return [];
  const tokens = new Set(written.map(({ token }) => token));
  return claims.filter(({ token }) => !tokens.has(token));
}

function arrayOf(values: readonly SqlValue[]): Uint8Array {
  const isText = values.some((value) => typeof value === "string");
  if (isText) return textArray(values.map((value) => (typeof value === "string" ? value : null)));
  return bigintArray(values.map((value) => (typeof value === "number" ? value : null)));
}

export async function putClaims(tx: SqlSession, claims: readonly Claim[]): Promise<void> {
  if (claims.length > 0) await tx.each(PUT, claims.map(valuesOf));
}

export async function removeClaims(tx: SqlSession, ids: readonly ClaimId[]): Promise<void> {
  if (ids.length > 0) await tx.each(REMOVE, ids.map(keyValues));
}

export async function putResults(tx: SqlSession, results: readonly (readonly [number, Uint8Array])[]): Promise<void> {
  if (results.length > 0) await tx.each(PUT_RESULT, results);
}

export async function removeResults(tx: SqlSession, tokens: readonly number[]): Promise<void> {
  if (tokens.length === 0) return;
  await tx.each(
    REMOVE_RESULT,
    tokens.map((token) => [token]),
  );
}

const FORBID_COPIES = `UPDATE dedup_claim SET copyable = 0 WHERE ${OF} AND token = $4`;

export async function forbidCopies(database: Pick<Database, "write">, id: ClaimId, token: number): Promise<void> {
  await database.write(FORBID_COPIES, [...keyValues(id), token]);
}
