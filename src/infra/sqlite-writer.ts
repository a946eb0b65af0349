import { setTimeout as delay, setImmediate as nextTurn } from "node:timers/promises";
import type { SqlRow, SqlSession, SqlStatement, SqlValue } from "./database.ts";
import { guardSession } from "./sql-session.ts";
import type { SqliteConnection } from "./sqlite-connection.ts";
import { closedError, isBusy, isDiskFull, toCallerError } from "./sqlite-error.ts";

/**
 * The one writer of an SQLite file. Writes that arrive in the same turn of the event loop run in one transaction and share
 * one commit, so a hundred concurrent callers wait for one fsync; each still succeeds or fails for itself.
 */
export interface SqliteWriter {
  write(sql: string, params: readonly SqlValue[]): Promise<SqlRow[]>;
  writeAll(statements: readonly SqlStatement[]): Promise<SqlRow[][]>;
  transaction<T>(work: (tx: SqlSession) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** A write that can share its transaction with others. */
interface Shareable {
  readonly kind: "shareable";
  /** How many statements it runs. */
  readonly weight: number;
  /** Runs in the open transaction. Returns what to call once the commit is durable. */
  run(): () => void;
  reject(error: unknown): void;
}

/** A transaction that awaits in between and therefore has the writer for itself. */
interface Interactive {
  readonly kind: "interactive";
  run(): Promise<void>;
  reject(error: unknown): void;
}

// Keeps one commit from occupying the thread for more than some milliseconds; the rest follows after a turn of the loop.
const STATEMENTS_PER_COMMIT = 1000;
const BUSY_RETRY_MS = 5;

export function createSqliteWriter(options: {
  connection: SqliteConnection;
  path: string;
  busyTimeoutMs: number;
}): SqliteWriter {
  const { connection, path, busyTimeoutMs } = options;
  let queue: (Shareable | Interactive)[] = [];
  let draining: Promise<void> | undefined;
  let closed = false;

  function enqueue(job: Shareable | Interactive): void {
    if (closed) {
      job.reject(closedError(path));
      return;
    }
    queue.push(job);
    draining ??= drain();
  }

  async function drain(): Promise<void> {
    await nextTurn();
    while (queue.length > 0) {
      const batch = takeBatch();
      if (batch.length > 0) await commitTogether(batch);
      else await runAlone();
      if (queue.length > 0) await nextTurn();
    }
    draining = undefined;
  }

  /** The shareable writes at the head of the queue: order is kept, so an interactive transaction ends the batch. */
  function takeBatch(): Shareable[] {
    const batch: Shareable[] = [];
    let weight = 0;
    for (const job of queue) {
      if (job.kind === "interactive" || weight >= STATEMENTS_PER_COMMIT) break;
      batch.push(job);
      weight += job.weight;
    }
    queue = batch.length === queue.length ? [] : queue.slice(batch.length);
    return batch;
  }

  async function commitTogether(batch: readonly Shareable[]): Promise<void> {
    if (!(await begin(batch))) return;
    const settle: (() => void)[] = [];
    try {
      for (const job of batch) {
        try {
          settle.push(job.run());
        } catch (error) {
          // Usually only the statement is undone; some errors take the transaction, and with it everybody else's work.
          if (!connection.inTransaction) throw error;
          settle.push(() => job.reject(toCallerError(error, path)));
        }
      }
      connection.commit();
    } catch (error) {
      connection.rollback();
      await afterLostCommit(batch, error);
      return;
    }
    for (const done of settle) done();
  }

  async function afterLostCommit(batch: readonly Shareable[], error: unknown): Promise<void> {
    if (batch.length > 1 && isDiskFull(error)) {
      // Perhaps only one of them was too big for what is left.
      for (const job of batch) await commitTogether([job]);
      return;
    }
    for (const job of batch) job.reject(toCallerError(error, path));
  }

  async function runAlone(): Promise<void> {
    const job = queue.shift();
    if (job?.kind === "interactive" && (await begin([job]))) await job.run();
  }

  /** Whether the transaction is open. If not, the jobs and all that queue behind them have been told why. */
  async function begin(jobs: readonly (Shareable | Interactive)[]): Promise<boolean> {
    const deadline = performance.now() + busyTimeoutMs;
    for (;;) {
      try {
        connection.begin();
        return true;
      } catch (error) {
        if (isBusy(error) && performance.now() < deadline) {
          await delay(BUSY_RETRY_MS);
          continue;
        }
        const waiting = [...jobs, ...queue];
        queue = [];
        for (const job of waiting) job.reject(toCallerError(error, path));
        return false;
      }
    }
  }

  async function runInteractive<T>(work: (tx: SqlSession) => Promise<T>): Promise<T> {
    // Mapped here too, so that the work sees what its caller would.
    const mapped = <Result>(run: () => Result): Result => {
      try {
        return run();
      } catch (error) {
        throw toCallerError(error, path);
      }
    };
    const guard = guardSession(
      (sql, params) => mapped(() => connection.run(sql, params)),
      (sql, rows) => mapped(() => connection.runEach(sql, rows)),
    );
    try {
      const result = await work(guard.tx);
      guard.end();
      guard.check();
      connection.commit();
      return result;
    } catch (error) {
      guard.end();
      connection.rollback();
      throw toCallerError(error, path);
    }
  }

  return {
    write: (sql, params) =>
      new Promise((resolve, reject) => {
        enqueue({
          kind: "shareable",
          weight: 1,
          run() {
            const rows = connection.run(sql, params);
            return () => resolve(rows);
          },
          reject,
        });
      }),
    writeAll: (statements) =>
      new Promise((resolve, reject) => {
        enqueue({
          kind: "shareable",
          weight: statements.length,
          run() {
            const rows = connection.within(() => statements.map((s) => connection.run(s.sql, s.params ?? [])));
            return () => resolve(rows);
          },
          reject,
        });
      }),
    transaction: (work) =>
      new Promise((resolve, reject) => {
        enqueue({ kind: "interactive", run: () => runInteractive(work).then(resolve, reject), reject });
      }),
    async close() {
      closed = true;
      await draining;
    },
  };
}
