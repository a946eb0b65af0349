import { createBackoff } from "../../infra/backoff.ts";
import type { Database } from "../../infra/database.ts";
import type { Log } from "../../infra/log.ts";
import { systemTimer, type Timer } from "../../infra/timer.ts";
import type { Growth } from "../archive/growth.ts";
import { BLOCK_LEAVES, KINDS } from "./sqlite-blocks.ts";

export interface SqliteIndex {
  /** Resolves when every complete block that was there at the time of the call is indexed. */
  caughtUp(): Promise<void>;
  /** Takes what retention has dropped among these leaves, both included, out of the index. Searches work without it, slower. */
  forgetDropped(firstLeaf: number, lastLeaf: number): Promise<void>;
  close(): Promise<void>;
}

export interface SqliteIndexOptions {
  readonly database: Database;
  readonly growth: Growth;
  readonly log: Log;
  readonly timer?: Timer;
}

/** How many kinds of keys are in the first commit of a block. */
const FIRST_KINDS = 3;

/**
 * Builds audit_index behind the archive: a block of leaves when it is complete, sorted, so that all that SQLite writes is at the
 * end of a table. In two commits: each takes the writer for some milliseconds, and more of them cost more. The row in audit_index_block comes last: a
 * block without it is built again.
 */
export function createSqliteIndex({ database, growth, log, timer = systemTimer }: SqliteIndexOptions): SqliteIndex {
  const backoff = createBackoff({ firstMs: 1000, capMs: 60_000 });
  let next: number | undefined;
  let building: Promise<void> | undefined;
  let cancelRetry = () => {};
  let closed = false;

  async function buildBlock(block: number): Promise<void> {
    const leaves = [block, block * BLOCK_LEAVES, (block + 1) * BLOCK_LEAVES];
    const statements = KINDS.map(({ kind, key }) => ({
      sql: `INSERT INTO audit_index (block, kind, key, occur_us, leaf_index)
        SELECT $1, ${kind}, ${key}, occur_us, leaf_index FROM audit_record
        WHERE leaf_index >= $2 AND leaf_index < $3 AND leaf IS NOT NULL AND ${key} IS NOT NULL
        ORDER BY 3, 4, 5
      ON CONFLICT DO NOTHING`,
      params: leaves,
    }));
    const last = {
      sql: `INSERT INTO audit_index_block (block, min_occur_us, max_occur_us)
        SELECT $1, min(occur_us), max(occur_us) FROM audit_record WHERE leaf_index >= $2 AND leaf_index < $3`,
      params: leaves,
    };
    await database.writeAll(statements.slice(0, FIRST_KINDS));
    if (!closed) await database.writeAll([...statements.slice(FIRST_KINDS), last]);
  }

  async function firstMissing(): Promise<number> {
    const [row] = await database.query<{ block: number }>(
      "SELECT coalesce(max(block) + 1, 0) AS block FROM audit_index_block",
    );
    return row?.block ?? 0;
  }

  async function build(): Promise<void> {
    next ??= await firstMissing();
    for (;;) {
      const [head] = await database.query<{ size: number }>("SELECT size FROM audit_head WHERE id = 1");
      const complete = Math.floor((head?.size ?? 0) / BLOCK_LEAVES);
      if (next >= complete) return;
      for (; next < complete; next++) {
        await buildBlock(next);
        if (closed) return;
      }
    }
  }

  function wake(): Promise<void> {
    building ??= build()
      .then(backoff.reset, (error: unknown) => {
        log.warn(
          { err: error },
          "the index of the audit log cannot be built; searches look through the newest records",
        );
        next = undefined;
        if (!closed) cancelRetry = timer(() => void wake(), backoff.next());
      })
      .finally(() => {
        building = undefined;
      });
    return building;
  }

  const forget = growth.onGrown((size) => {
    if (next === undefined || size >= (next + 1) * BLOCK_LEAVES) void wake();
  });
  void wake();

  return {
    async caughtUp() {
      // What is under way may have looked at the size before.
      await building;
      await wake();
    },
    async forgetDropped(firstLeaf, lastLeaf) {
      const lastBlock = Math.floor(lastLeaf / BLOCK_LEAVES);
      for (let block = Math.floor(firstLeaf / BLOCK_LEAVES); block <= lastBlock && !closed; block++) {
        for (const { kind } of KINDS) {
          await database.write(
            `DELETE FROM audit_index WHERE block = $1 AND kind = $2
              AND leaf_index IN (
                SELECT leaf_index FROM audit_record WHERE leaf_index >= $3 AND leaf_index <= $4 AND leaf IS NULL)`,
            [
              block,
              kind,
              Math.max(firstLeaf, block * BLOCK_LEAVES),
              Math.min(lastLeaf, (block + 1) * BLOCK_LEAVES - 1),
            ],
          );
        }
      }
    },
    async close() {
      closed = true;
      forget();
      cancelRetry();
      await building;
    },
  };
}
