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
  runEach: (sql: string, rows: readonly (readonly SqlValue[])[]) => void | Promise<void>,
): GuardedSession {
  let failed: { readonly error: unknown } | undefined;
  let ended = false;

  function check(): void {
    if (failed !== undefined) throw failed.error;
  }

  async function guarded<T>(work: () => T | Promise<T>): Promise<T> {
    if (ended) throw new Error("the transaction has ended");
    check();
    try {
      return await work();
    } catch (error) {
      failed ??= { error };
      throw error;
    }
  }

  return {
    tx: {
      // The caller knows what its statement returns.
      query: async <Row extends SqlRow>(sql: string, params: readonly SqlValue[] = []) =>
        (await guarded(() => run(sql, params))) as Row[],
      each: (sql, rows) => guarded(() => runEach(sql, rows)),
    },
    check,
    end() {
      ended = true;
    },
  };
}
