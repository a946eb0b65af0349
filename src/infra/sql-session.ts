import type { SqlRow, SqlSession, SqlValue } from "./database.ts";

/** What a transaction's work may use: only while it lasts, and only as long as each of its statements succeeded. */
export interface GuardedSession {
  readonly tx: SqlSession;
  /** Throws the error of the first failed statement, if any. */
  check(): void;
  /** From here on nothing more can be asked. */
  end(): void;
}

/**
 * A failed statement dooms its transaction in Postgres, even when the work catches the error: COMMIT would quietly roll back.
 * SQLite would commit the rest. Here both refuse, so that a transaction means the same on either.
 */
export function guardSession(
  run: (sql: string, params: readonly SqlValue[]) => SqlRow[] | Promise<SqlRow[]>,
): GuardedSession {
  let failed: { readonly error: unknown } | undefined;
  let ended = false;

  function check(): void {
    if (failed !== undefined) throw failed.error;
  }

  return {
    tx: {
      async query<Row extends SqlRow>(sql: string, params: readonly SqlValue[] = []): Promise<Row[]> {
        if (ended) throw new Error("the transaction has ended");
        check();
        try {
          // The caller knows what its statement returns.
          return (await run(sql, params)) as Row[];
        } catch (error) {
          failed ??= { error };
          throw error;
        }
      },
    },
    check,
    end() {
      ended = true;
    },
  };
}
