import type { Database } from "./database.ts";
import { UnavailableError } from "./failure.ts";

/** A database, and word of every call that failed because it is away. Its own `ping` is not among them: who asks is told. */
export interface ObservedDatabase {
  readonly database: Database;
  /** Called at each such failure, before the caller sees it. Returns the unsubscribe. */
  onUnavailable(listener: () => void): () => void;
}

export function observeDatabase(database: Database): ObservedDatabase {
  const listeners = new Set<() => void>();

  // Beside the caller's own chain, which is not a step longer for it.
  function watched<T>(work: Promise<T>): Promise<T> {
    work.catch((error: unknown) => {
      if (error instanceof UnavailableError) for (const listener of listeners) listener();
    });
    return work;
  }

  return {
    database: {
      kind: database.kind,
      shared: database.shared,
      query: (sql, params) => watched(database.query(sql, params)),
      write: (sql, params) => watched(database.write(sql, params)),
      writeAll: (statements) => watched(database.writeAll(statements)),
      transaction: (work) => watched(database.transaction(work)),
      ping: () => database.ping(),
      close: () => database.close(),
    },
    onUnavailable(listener) {
      const own = () => listener();
      listeners.add(own);
      return () => void listeners.delete(own);
    },
  };
}
