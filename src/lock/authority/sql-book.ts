import type { Database, SqlSession } from "../../infra/database.ts";
import { textArray } from "../../infra/postgres-array.ts";
import type { SqlClock } from "../../infra/sql-clock.ts";
import type { LockRecord } from "../record/grant.ts";
import { type Attempt, type AttemptKey, forgetAttempts, keepAttempts, readAttempts } from "./sql-attempts.ts";
import { HEAD_COLUMNS, HEAD_LOCK, type HeadRow, headIn, readHead } from "./sql-heads.ts";
import { putRecords, RECORD_COLUMNS, type RecordRow, recordOf } from "./sql-records.ts";

/** Advisory locks of locks; any number that nothing else in the database uses. */
const LOCK_SPACE = 1_819_239_019;

/**
 * A lock that has no record has no row to hold: all who decide about it at the same time meet here. In the order of the
 * numbers, so that two transactions never wait for each other. Whoever changes the head waits for all of them, and they for
 * it.
 */
const MEET = `SELECT pg_advisory_xact_lock_shared(${HEAD_LOCK}), (
  SELECT COUNT(pg_advisory_xact_lock(${LOCK_SPACE}, given.number)) FROM (
    SELECT DISTINCT hashtext(name) AS number FROM unnest($1::text[]) AS name ORDER BY number) AS given) AS met`;

/** One statement, so that the head and the records are of the same moment: a record that is gone has raised the floor. */
const READ_ALL = `SELECT ${HEAD_COLUMNS}, ${RECORD_COLUMNS} FROM lock_head
  LEFT JOIN lock_record ON name = ANY($1::text[]) WHERE id = 1`;
const READ_ONE = `SELECT ${RECORD_COLUMNS} FROM lock_record WHERE name = $1`;

/** What a transaction is about. */
export interface SqlBookOptions {
  readonly kind: Database["kind"];
  readonly tx: SqlSession;
  readonly clock: SqlClock;
  readonly names: ReadonlySet<string>;
  readonly attempts: readonly AttemptKey[];
}

/** Reads it at once. In Postgres nobody else decides about these locks until the transaction ends. */
export async function openSqlBook(options: SqlBookOptions): Promise<SqlBook> {
  const { kind, tx, clock, names } = options;
  const keys = [...new Map(options.attempts.map((key) => [textOf(key), key])).values()];
  if (kind === "sqlite") {
    const head = await readHead(tx);
    const rows: RecordRow[] = [];
    for (const name of names) rows.push(...(await tx.query<RecordRow>(READ_ONE, [name])));
    return new SqlBook(options, head, await clock(tx), rows, await readAttempts(kind, tx, keys));
  }
  const all = textArray([...names]);
  // They are sent at once, and carried out one after the other: by the time of the clock, the locks are this transaction's.
  const [, rows, nowMs, attempts] = await Promise.all([
    tx.query(MEET, [all]),
    tx.query<HeadRow & (RecordRow | { name: null })>(READ_ALL, [all]),
    clock(tx),
    readAttempts(kind, tx, keys),
  ]);
  const records = rows.filter((row): row is HeadRow & RecordRow => row.name !== null);
  return new SqlBook(options, headIn(rows), nowMs, records, attempts);
}

/** The locks that one transaction is about: read at its beginning, written at its end. */
export class SqlBook {
  readonly #kind: Database["kind"];
  readonly #tx: SqlSession;
  readonly #records = new Map<string, LockRecord>();
  readonly #changed = new Set<string>();
  readonly #attempts = new Map<string, Attempt>();
  readonly #kept = new Map<string, Attempt>();
  readonly #forgotten = new Map<string, AttemptKey>();
  readonly head: HeadRow;
  readonly nowMs: number;

  constructor(
    { kind, tx }: SqlBookOptions,
    head: HeadRow,
    nowMs: number,
    rows: readonly RecordRow[],
    attempts: readonly Attempt[],
  ) {
    this.#kind = kind;
    this.#tx = tx;
    this.head = head;
    this.nowMs = nowMs;
    for (const row of rows) this.#records.set(row.name, recordOf(row));
    for (const attempt of attempts) this.#attempts.set(textOf(attempt), attempt);
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

  attempt(key: AttemptKey): Attempt | undefined {
    const attempt = this.#attempts.get(textOf(key));
    return attempt !== undefined && attempt.forgetMs > this.nowMs ? attempt : undefined;
  }

  keepAttempt(attempt: Attempt): void {
    const text = textOf(attempt);
    this.#attempts.set(text, attempt);
    this.#kept.set(text, attempt);
    this.#forgotten.delete(text);
  }

  forgetAttempt(key: AttemptKey): void {
    const text = textOf(key);
    this.#attempts.delete(text);
    this.#kept.delete(text);
    this.#forgotten.set(text, key);
  }

  async write(): Promise<void> {
    const records = Array.from(this.#changed, (name) => this.#records.get(name));
    await Promise.all([
      putRecords(
        this.#kind,
        this.#tx,
        records.filter((record) => record !== undefined),
      ),
      keepAttempts(this.#kind, this.#tx, [...this.#kept.values()]),
      forgetAttempts(this.#tx, [...this.#forgotten.values()]),
    ]);
  }
}

function textOf({ name, requestId }: AttemptKey): string {
  return `${requestId.length} ${requestId} ${name}`;
}
