/**
 * The SQL port. Statements are written once for both backends: `$1`-style parameters (each may be used several times), upserts
 * by ON CONFLICT, RETURNING, and no functions that only one of them has. Where they truly differ, `kind` says which one it is.
 */
export type SqlValue = string | number | bigint | Uint8Array | null;

/** Rows come back with BIGINT as number (values stay below 2^53), BYTEA/BLOB as Uint8Array, text as string. */
export type SqlRow = Record<string, SqlValue>;

export interface SqlStatement {
  readonly sql: string;
  readonly params?: readonly SqlValue[];
}

export interface SqlSession {
  query<Row extends SqlRow>(sql: string, params?: readonly SqlValue[]): Promise<Row[]>;
  /** One statement for each row of parameters, in order; what they return is not wanted. The fast way to insert many in SQLite. */
  each(sql: string, rows: readonly (readonly SqlValue[])[]): Promise<void>;
}

export interface Database {
  readonly kind: "sqlite" | "postgres";
  /** Whether other instances may be writing the same database. */
  readonly shared: boolean;
  /**
   * One reading statement. Sees what is committed; never waits for a writer. SQLite answers within the turn of the event
   * loop, so a long loop of queries has to pause (setImmediate) to let anything else happen.
   */
  query<Row extends SqlRow>(sql: string, params?: readonly SqlValue[]): Promise<Row[]>;
  /** One writing statement, durable when it resolves. Concurrent writes share one commit where that is faster. */
  write<Row extends SqlRow>(sql: string, params?: readonly SqlValue[]): Promise<Row[]>;
  /** Several statements, all or none, in order, durable when it resolves. Returns the rows of each. */
  writeAll(statements: readonly SqlStatement[]): Promise<SqlRow[][]>;
  /**
   * A transaction that reads and decides in between. In SQLite it holds the one writer until it ends, so nothing slow belongs
   * inside; in Postgres it is serializable only by the row locks its own statements take. A failed statement undoes all of
   * it, even when the work catches the error. Inside, use `tx` alone: waiting for another call to this database would wait
   * for this very transaction.
   */
  transaction<T>(work: (tx: SqlSession) => Promise<T>): Promise<T>;
  /** Resolves when the database answers; for health. */
  ping(): Promise<void>;
  /** Waits for what is under way, then closes. */
  close(): Promise<void>;
}
