import { LRUCache } from "lru-cache";
import pg from "pg";
import type { SqlRow, SqlValue } from "./database.ts";
import { type PostgresTls, postgresTarget } from "./postgres-connection.ts";
import { closedError, isStalePlan, spoilsConnection, toCallerError } from "./postgres-error.ts";

export interface PostgresOptions {
  readonly url: string;
  /** How many connections at most. */
  readonly poolSize: number;
  /** The longest a statement may run. The client gives up a little later by itself, should the server not answer at all. */
  readonly statementTimeoutMs: number;
  /** The longest to wait for a connection: a new one, or one of the pool to become free. */
  readonly connectTimeoutMs: number;
  readonly ssl?: PostgresTls;
}

/** A connection for the time that `use` lends it. Statements may be sent without awaiting the one before (pipelining). */
export interface PostgresSession {
  run(sql: string, params?: readonly SqlValue[]): Promise<{ readonly command: string; readonly rows: SqlRow[] }>;
}

export interface PostgresPool {
  /** Lends a connection to `work`; afterwards it goes back, or away if an error spoiled it. */
  use<T>(work: (session: PostgresSession) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

// Statements are fixed texts in the code, so this is a bound against variable ones (lists), not a budget.
const PREPARED_STATEMENTS = 512;
// Ahead of the server's own timeout the client would make of every slow statement a lost connection.
const CLIENT_GRACE_MS = 250;
// Should this process be frozen inside a transaction, those who wait for the row locks it holds must get them before their own
// statements run out of time.
const IDLE_IN_TRANSACTION_SHARE = 0.8;
const LEAST_IDLE_IN_TRANSACTION_MS = 2_000;
const IDLE_MS = 60_000;

export function createPostgresPool(options: PostgresOptions): PostgresPool {
  const { name: target, config } = postgresTarget(options.url, options.ssl);
  const pool = new pg.Pool({
    ...config,
    max: options.poolSize,
    connectionTimeoutMillis: options.connectTimeoutMs,
    statement_timeout: options.statementTimeoutMs,
    query_timeout: options.statementTimeoutMs + CLIENT_GRACE_MS,
    idle_in_transaction_session_timeout: Math.max(
      LEAST_IDLE_IN_TRANSACTION_MS,
      Math.round(IDLE_IN_TRANSACTION_SHARE * options.statementTimeoutMs),
    ),
    idleTimeoutMillis: IDLE_MS,
    pipeline: true,
  });
  // A lost idle connection is nobody's error: the pool has dropped it already.
  pool.on("error", () => {});

  const names = new LRUCache<string, string>({ max: PREPARED_STATEMENTS });
  let named = 0;
  const preparedOn = new WeakMap<pg.PoolClient, Set<string>>();
  const underWay = new Set<Promise<unknown>>();
  let closing: Promise<void> | undefined;

  function nameFor(sql: string, client: pg.PoolClient): string {
    let name = names.get(sql);
    if (name === undefined) {
      named += 1;
      name = `holdfast_${named}`;
      names.set(sql, name);
    }
    const prepared = preparedOn.get(client) ?? new Set();
    preparedOn.set(client, prepared.add(name));
    return name;
  }

  async function connect(): Promise<pg.PoolClient> {
    try {
      return await pool.connect();
    } catch (error) {
      throw toCallerError(error, target);
    }
  }

  async function lend<T>(work: (session: PostgresSession) => Promise<T>): Promise<T> {
    const client = await connect();
    let spoiled = false;
    // While it is lent nobody else listens, and an unheard "error" event would end the process. The query rejects as well.
    const onError = () => {
      spoiled = true;
    };
    client.on("error", onError);
    const session: PostgresSession = {
      async run(sql, params = []) {
        try {
          // Without parameters it is DDL or transaction control, which is not worth preparing.
          if (params.length === 0) return await client.query<SqlRow>(sql);
          return await client.query<SqlRow>({ name: nameFor(sql, client), text: sql, values: [...params] });
        } catch (error) {
          if (isStalePlan(error)) names.delete(sql);
          spoiled ||= spoilsConnection(error);
          throw toCallerError(error, target);
        }
      },
    };
    try {
      return await work(session);
    } finally {
      client.off("error", onError);
      // At once and without a goodbye: a frozen server would never answer it.
      if (spoiled) client.connection.stream.destroy();
      // Names that fell out of the cache stay prepared on the server, so a connection that has many of them is retired.
      const bloated = (preparedOn.get(client)?.size ?? 0) > 2 * PREPARED_STATEMENTS;
      client.release(spoiled || bloated);
    }
  }

  async function finish(): Promise<void> {
    while (underWay.size > 0) await Promise.allSettled(underWay);
    await pool.end();
  }

  return {
    async use(work) {
      if (closing !== undefined) throw closedError(target);
      const lent = lend(work);
      underWay.add(lent);
      try {
        return await lent;
      } finally {
        underWay.delete(lent);
      }
    },
    close() {
      closing ??= finish();
      return closing;
    },
  };
}
