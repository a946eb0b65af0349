import { setTimeout as delay } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import pg from "pg";
import { BLOCK_LEAVES } from "../src/audit/search/sqlite-blocks.ts";

/** How far a server's archive has got, read from its database behind its back. */
export interface Progress extends AsyncDisposable {
  size(): Promise<number>;
  /** Resolves with the time, in milliseconds since 1970, when so many records are in SQL. */
  reached(size: number): Promise<number>;
  /** The same, when they are in the index that is built behind them as well. */
  indexed(size: number): Promise<number>;
}

const POLL_MS = 20;
const PATIENCE_MS = 300_000;
const SIZE = "SELECT size FROM audit_head WHERE id = 1";

export function watchSqlite(path: string): Progress {
  const db = new Sqlite(path, { readonly: true });
  const size = db.prepare<[], { size: number }>(SIZE);
  const indexed = db.prepare<[], { blocks: number }>(
    "SELECT coalesce(max(block) + 1, 0) AS blocks FROM audit_index_block",
  );
  return progress({
    size: async () => size.get()?.size ?? 0,
    isIndexed: async (wanted) => (indexed.get()?.blocks ?? 0) >= Math.floor(wanted / BLOCK_LEAVES),
    close: async () => void db.close(),
  });
}

export async function watchPostgres(connectionString: string): Promise<Progress> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  return progress({
    size: async () => Number((await client.query<{ size: string }>(SIZE)).rows[0]?.size ?? 0),
    // Its indexes are part of the commit.
    isIndexed: async () => true,
    close: () => client.end(),
  });
}

interface Source {
  size(): Promise<number>;
  isIndexed(size: number): Promise<boolean>;
  close(): Promise<void>;
}

function progress({ size, isIndexed, close }: Source): Progress {
  async function when(condition: () => Promise<boolean>): Promise<number> {
    const giveUpAt = Date.now() + PATIENCE_MS;
    while (!(await condition())) {
      if (Date.now() > giveUpAt) throw new Error(`${await size()} records were archived, and no more came`);
      await delay(POLL_MS);
    }
    return Date.now();
  }
  const hasSize = async (wanted: number) => (await size()) >= wanted;
  return {
    size,
    reached: (wanted) => when(() => hasSize(wanted)),
    indexed: (wanted) => when(async () => (await hasSize(wanted)) && (await isIndexed(wanted))),
    [Symbol.asyncDispose]: close,
  };
}
