import type { Database, SqlSession, SqlValue } from "../../infra/database.ts";
import type { LockRecord } from "../record/grant.ts";
import { ATTEMPT_KEPT_MS } from "./authority.ts";
import { putRecords, RECORD_COLUMNS, type RecordRow, recordOf } from "./sql-records.ts";

/** What is under way on a lock, or a request id under which something is remembered. */
export interface Named {
  readonly name: string;
  readonly requestId: string;
}

interface Attempt {
  readonly meaning: string;
  readonly note: string;
}

/** The locks that one transaction is about: read at its beginning, written at its end. */
export class SqlBook {
  readonly #tx: SqlSession;
  readonly #records = new Map<string, LockRecord>();
  readonly #changed = new Set<string>();
  readonly #attempts = new Map<string, Attempt | undefined>();
  readonly nowMs: number;

  constructor(tx: SqlSession, nowMs: number, records: readonly LockRecord[]) {
    this.#tx = tx;
    this.nowMs = nowMs;
    for (const record of records) this.#records.set(record.grant.name, record);
  }

  record(name: string): LockRecord | undefined {
    return this.#records.get(name);
  }

  put(record: LockRecord): void {
    const { name } = record.grant;
    if (this.#records.get(name) === record) return;
    this.#records.set(name, record);
    this.#changed.add(name);
  }

  async attempt({ name, requestId }: Named): Promise<Attempt | undefined> {
    const key = keyOf({ name, requestId });
    if (!this.#attempts.has(key)) {
      const [row] = await this.#tx.query<{ meaning: string; note: string }>(
        "SELECT meaning, note FROM lock_attempt WHERE name = $1 AND request_id = $2 AND forget_ms > $3",
        [name, requestId, this.nowMs],
      );
      this.#attempts.set(key, row);
    }
    return this.#attempts.get(key);
  }

  /** From `fromMs` on, it is remembered for as long as attempts are. */
  async keepAttempt(named: Named, attempt: Attempt, fromMs: number): Promise<void> {
    this.#attempts.set(keyOf(named), attempt);
    const { name, requestId } = named;
    await this.#tx.query(
      `INSERT INTO lock_attempt (name, request_id, meaning, note, forget_ms) VALUES ($1, $2, $3, $4, $5)
      ON CONFLICT (name, request_id) DO UPDATE
      SET meaning = excluded.meaning, note = excluded.note, forget_ms = excluded.forget_ms`,
      [name, requestId, attempt.meaning, attempt.note, fromMs + ATTEMPT_KEPT_MS],
    );
  }

  async forgetAttempt(named: Named): Promise<void> {
    this.#attempts.set(keyOf(named), undefined);
    const { name, requestId } = named;
    await this.#tx.query("DELETE FROM lock_attempt WHERE name = $1 AND request_id = $2", [name, requestId]);
  }

  async write(): Promise<void> {
    const changed = Array.from(this.#changed, (name) => this.#records.get(name));
    await putRecords(
      this.#tx,
      changed.filter((record) => record !== undefined),
    );
  }
}

export function keyOf({ name, requestId }: Named): string {
  return `${requestId.length} ${requestId} ${name}`;
}

/** The newest grants of these locks; in Postgres nobody else changes them until the transaction ends. */
export async function readRecords(
  kind: Database["kind"],
  tx: SqlSession,
  names: readonly string[],
): Promise<readonly LockRecord[]> {
  if (kind === "postgres") {
    // A lock that has no record has no row to hold: all who take it at the same time meet here. In the order of the names, so
    // that two transactions never wait for each other.
    const sorted = [...names].sort();
    const held: SqlValue[] = [...sorted];
    const list = sorted.map((_, at) => `$${at + 1}`).join(", ");
    await tx.query(
      `SELECT pg_advisory_xact_lock(${LOCK_SPACE}, hashtext(given.name)) FROM (
        SELECT name FROM unnest(ARRAY[${list}]::text[]) AS name ORDER BY hashtext(name)) AS given`,
      held,
    );
  }
  const list = names.map((_, at) => `$${at + 1}`).join(", ");
  const rows = await tx.query<RecordRow>(`SELECT ${RECORD_COLUMNS} FROM lock_record WHERE name IN (${list})`, names);
  return rows.map(recordOf);
}

/** Advisory locks of locks; any number that nothing else in the database uses. */
const LOCK_SPACE = 1_819_239_019;
