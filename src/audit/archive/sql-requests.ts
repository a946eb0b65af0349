import type { SqlSession } from "../../infra/database.ts";
import { type NamedRequest, RequestIdReusedError } from "../../infra/named-request.ts";

/** Whose request it is, and of which kind: names of other callers, and of other RPCs, are other names. */
export interface RememberedRequest {
  readonly scope: string;
  readonly caller: string;
  readonly named: NamedRequest;
}

const KEPT_MS = 10 * 60_000;
/** Each answer that is added takes some that have expired with it, so that none has to take many. */
const SWEPT = 100;

/** What was answered the first time, while it is remembered. Throws if the name was another request's. */
export async function recallAnswer(
  tx: SqlSession,
  request: RememberedRequest,
  now: number,
): Promise<Uint8Array | undefined> {
  const [row] = await tx.query<{ answer: Uint8Array }>(
    "SELECT answer FROM audit_request WHERE scope = $1 AND request_id = $2 AND expires_at > $3",
    [request.scope, nameOf(request), now],
  );
  if (row === undefined) return undefined;
  const end = row.answer.indexOf(0);
  const meaning = Buffer.from(row.answer.subarray(0, end)).toString();
  if (meaning !== request.named.meaning) throw new RequestIdReusedError(request.named.id);
  return row.answer.subarray(end + 1);
}

/** Remembers an answer for ten minutes, if the transaction that it is the answer of is committed. */
export async function rememberAnswer(
  tx: SqlSession,
  request: RememberedRequest,
  answer: Uint8Array,
  now: number,
): Promise<void> {
  await tx.query(
    `DELETE FROM audit_request WHERE (scope, request_id) IN
      (SELECT scope, request_id FROM audit_request WHERE expires_at <= $1 ORDER BY expires_at LIMIT ${SWEPT})`,
    [now],
  );
  await tx.query(
    `INSERT INTO audit_request (scope, request_id, answer, expires_at) VALUES ($1, $2, $3, $4)
      ON CONFLICT (scope, request_id) DO UPDATE SET answer = excluded.answer, expires_at = excluded.expires_at`,
    [request.scope, nameOf(request), Buffer.concat([Buffer.from(`${request.named.meaning}\0`), answer]), now + KEPT_MS],
  );
}

/** As JSON, because either part may hold any character. */
function nameOf({ caller, named }: RememberedRequest): string {
  return JSON.stringify([caller, named.id]);
}
