import type { Database, SqlRow } from "../infra/database.ts";
import type { Log } from "../infra/log.ts";
import type { SqlMarkReclaimer } from "./sql-mark-reclaimer.ts";
import { parseStamps } from "./sql-row.ts";
import { paddedList } from "./sql-statements.ts";

/**
 * Walks through the entries in SQL, a page at a time and without end, and removes those that were invalidated. An invalidation
 * itself costs one row whatever it invalidates; without the walk, entries that never expire would stay for ever.
 */
export interface SqlReclaimer {
  /** One page. Returns how many entries were removed. */
  step(): Promise<number>;
  close(): Promise<void>;
}

export interface SqlReclaimerOptions {
  readonly database: Database;
  /** Is told of all that is met on the way. */
  readonly marks: SqlMarkReclaimer;
  readonly log: Log;
  readonly everyMs?: number;
}

/** With a page a second, a million entries are walked through in about half an hour, at a cost nobody notices. */
const EVERY_MS = 1_000;
const PAGE = 500;
const START = { namespace: "", key: "" };

interface PageRow extends SqlRow {
  readonly namespace: string;
  readonly key: string;
  readonly version: number;
  readonly stamps: string;
  readonly unhealed: number;
}

export function startSqlReclaimer({ database, marks, log, everyMs = EVERY_MS }: SqlReclaimerOptions): SqlReclaimer {
  let after: { readonly namespace: string; readonly key: string } = START;
  let stepping: Promise<unknown> | undefined;

  async function step(): Promise<number> {
    const removed = await stepEntries();
    await marks.step();
    return removed;
  }

  async function stepEntries(): Promise<number> {
    if (after === START) marks.begin();
    const rows = await database.query<PageRow>(
      `SELECT namespace, key, version, stamps, unhealed FROM cache_entry
       WHERE (namespace, key) > ($1, $2) ORDER BY namespace, key LIMIT ${PAGE}`,
      [after.namespace, after.key],
    );
    for (const row of rows) marks.meet(row.namespace, parseStamps(row.stamps).tags);
    if (rows.length < PAGE) marks.end();
    after = rows.length < PAGE ? START : (rows.at(-1) ?? START);
    const healed = rows.filter((row) => row.unhealed === 0);
    let removed = 0;
    for (const [namespace, group] of Map.groupBy(healed, (row) => row.namespace)) {
      const dead = await deadOf(namespace, group);
      if (dead.length === 0) continue;
      await database.writeAll(
        dead.map(({ key, version }) => ({
          // Only what was looked at: the key may have been stored anew meanwhile.
          sql: "DELETE FROM cache_entry WHERE namespace = $1 AND key = $2 AND version = $3 AND unhealed = 0",
          params: [namespace, key, version],
        })),
      );
      removed += dead.length;
    }
    return removed;
  }

  async function deadOf(namespace: string, rows: readonly PageRow[]): Promise<PageRow[]> {
    const parsed = rows.map((row) => parseStamps(row.stamps));
    const { text, params } = paddedList(
      2,
      [...new Set(["", ...parsed.flatMap(({ tags }) => tags)])].slice(0, MOST_TAGS),
    );
    const marks = await database.query<{ tag: string; stamp: number }>(
      `SELECT tag, stamp FROM cache_mark WHERE namespace = $1 AND tag IN (${text})`,
      [namespace, ...params],
    );
    const current = new Map(marks.map(({ tag, stamp }) => [tag, stamp]));
    const asked = new Set(params);
    return rows.filter((_, i) => {
      const { tags, stamps } = parsed[i] ?? { tags: [], stamps: [] };
      return ["", ...tags].some((tag, at) => asked.has(tag) && current.get(tag) !== stamps[at]);
    });
  }

  const timer = setInterval(() => {
    stepping ??= step()
      .catch((err: unknown) => log.debug({ err }, "invalidated cache entries not removed yet"))
      .finally(() => {
        stepping = undefined;
      });
  }, everyMs).unref();

  return {
    step,
    async close() {
      clearInterval(timer);
      await stepping;
    },
  };
}

/** A page with more tags than this leaves some unjudged; they come up again with the next walk. */
const MOST_TAGS = 4_096;
